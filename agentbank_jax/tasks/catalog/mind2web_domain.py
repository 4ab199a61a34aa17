"""Mind2Web, cross-domain: test tasks of domains that training has not seen."""

from agentbank_jax.tasks.mind2web_pages import make_pages_task

TASK = make_pages_task("mind2web_domain", test="test_domain")
