"""Mind2Web, cross-website: test tasks on new websites of domains that training has seen."""

from agentbank_jax.tasks.mind2web_pages import make_pages_task

TASK = make_pages_task("mind2web_website", test="test_website")
