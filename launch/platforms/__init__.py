"""What each platform does: its `VERBS`, name -> function of (config, workdir, shell) that returns an exit code."""
