"""Mind2Web, cross-task: test tasks on websites that training has seen."""

from agentbank_jax.tasks.mind2web_pages import make_pages_task

TASK = make_pages_task("mind2web", test="test_task")
