"""What a chat format is: a Jinja template, taken apart into the text around the contents.

A template is asked, never re-written in Python: it renders a conversation whose contents are marks, and what
stands between the marks is the format. So the exported template and the renderer cannot disagree.
"""

from collections.abc import Sequence
import dataclasses
import re

from agentbank_jax.errors import UserError


class ChatError(ValueError):
  """A conversation that a format cannot hold.

  Attributes:
    turn: index into the trajectory's turns.
    reason: what is wrong with it.
  """

  def __init__(self, turn: int, reason: str):
    super().__init__(turn, reason)
    self.turn = turn
    self.reason = reason

  def __str__(self) -> str:
    return f"turn {self.turn}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Format:
  """A native chat format.

  Attributes:
    template: its Jinja text.
    control_tokens: what it needs in the vocabulary besides bos and eos.
    stop_strings: text that ends an agent's turn as its terminator does.
  """

  template: str
  control_tokens: tuple[str, ...] = ()
  stop_strings: tuple[str, ...] = ()


_ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
              "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}")

FORMATS = {
    # Llama-2-7b-chat-hf, verbatim.
    "llama2": Format(
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + _ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"),
    # Meta-Llama-3-8B-Instruct, verbatim. A tool turn gets the header "tool".
    "llama3": Format(
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
        "{% endif %}",
        control_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    # Qwen2.5-Instruct without its branches for tool schemas and tool calls, which turns never carry. Like the
    # original it speaks as Qwen where no system turn is given; give one where that is not wanted.
    "chatml": Format(
        "{%- if messages[0]['role'] == 'system' %}"
        "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}"
        "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}"
        "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) "
        "or message.role == 'assistant' %}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
        "{%- elif message.role == 'tool' %}"
        "{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}"
        "{{- '<|im_start|>user' }}{%- endif %}"
        "{{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}"
        "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}"
        "{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        control_tokens=("<|im_start|>", "<|im_end|>")),
    # Mistral-7B-Instruct-v0.1/v0.2 as their model cards print it, a system turn in front of the first user
    # turn. With the SentencePiece model this is mistral-common's v1: <s>, encode("[INST] hi [/INST]"),
    # encode("answer"), </s>, encode("[INST] ...").
    "mistral": Format(
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] + '\\n\\n' %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = '' %}{% endif %}{{ bos_token }}"
        "{% for message in loop_messages %}" + _ALTERNATE +
        "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + (system_message if loop.first else '') + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
        "{% endfor %}"),
    # For base models: no token that they have not seen.
    "plain": Format(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "{{ 'Assistant: ' + message['content'] | trim + eos_token }}"
        "{% elif message['role'] != 'system' %}{{ 'User: ' + message['content'] | trim + '\\n\\n' }}"
        "{% elif loop.first %}{{ message['content'] | trim + '\\n\\n' }}"
        "{% else %}{{ raise_exception('Only the first turn can be a system turn') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        stop_strings=("\nUser:",)),
}

# What marks a content in a skeleton: white space that trimming would remove, around private-use characters.
_BEFORE, _AFTER = "\n ", " \n"
_MARK = re.compile(f"({_BEFORE})?\ue000([0-9]+)\ue001({_AFTER})?")


@dataclasses.dataclass(frozen=True)
class Layout:
  """A rendered conversation without its contents.

  Attributes:
    literals: the text before, between and behind the contents; one more than there are messages.
    trims: for each message, whether white space is removed on the left and on the right of its content.
  """

  literals: tuple[str, ...]
  trims: tuple[tuple[bool, bool], ...]

  def trim(self, message: int, content: str) -> str:
    """Returns the content as it appears in the text."""
    left, right = self.trims[message]
    content = content.lstrip() if left else content
    return content.rstrip() if right else content

  def compose(self, contents: Sequence[str]) -> str:
    """Returns the text of a conversation."""
    parts = [self.literals[0]]
    for i, content in enumerate(contents):
      parts += (self.trim(i, content), self.literals[i + 1])
    return "".join(parts)


class ChatTemplate:
  """A Jinja template and the layouts it gives.

  Attributes:
    text: the template.
    reply: literal text in front of and behind an agent's content that belongs to the agent's turn: what
      the generation prompt does not have, and what stands before the terminator.
    terminator: the control token that ends an agent's turn.
    reply_trims: whether an agent's content is trimmed, on the left and on the right.
  """

  def __init__(self, text: str, special: dict[str, str], controls: re.Pattern[str]):
    """Learns how an agent's turn starts and ends.

    Args:
      text: the Jinja text.
      special: bos_token, eos_token and others, as the template sees them.
      controls: matches the control tokens.

    Raises:
      UserError: the template cannot be used for training, with the reason.
    """
    self.text = text
    self._special = {"bos_token": ""} | special
    self._layouts: dict[tuple[tuple[str, ...], bool], Layout] = {}
    try:
      header = self.skeleton(("user",), True).literals[-1]
      layout = self.skeleton(("user", "assistant"), False)
      if not layout.literals[1].startswith(header):
        raise ChatError(1, "the generation prompt differs from the header of the agent's turn")
      ending = controls.search(layout.literals[2])
      if ending is None:
        raise ChatError(1, f"the agent's turn ends with {layout.literals[2]!r}, not with a special token")
      self.reply = layout.literals[1][len(header):], layout.literals[2][:ending.start()]
      self.terminator = ending[0].strip()
      self.reply_trims = layout.trims[1]
      self._check_thoughts()
    except ChatError as e:
      raise UserError(f"the chat template cannot be used for training: {e.reason} (probe conversation, {e}); "
                      "choose another chat format") from None

  def _check_thoughts(self) -> None:
    """Raises ChatError where earlier turns lose what the agent has thought (as in Qwen 3)."""
    roles = ("user", "assistant", "user", "assistant")
    contents = ("a", "<think>\nb\n</think>\n\nc", "d", "<think>\ne\n</think>\n\nf")
    layout = self.layout(roles, False)
    if layout.compose(contents) != self.render(list(zip(roles, contents, strict=True)), False):
      raise ChatError(1, "it takes <think> text out of the agent's turns")

  def render(self, messages: Sequence[tuple[str, str]], generation: bool) -> str:
    """Returns the template's own text of (role, content) messages, as transformers renders it.

    Raises:
      ChatError: the template refuses; `turn` is the first message it refuses at.
    """
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    def attempt(n: int) -> str:
      chat = [{"role": role, "content": content} for role, content in messages[:n]]
      return render_jinja_template(conversations=[chat], chat_template=self.text,
                                   add_generation_prompt=generation, **self._special)[0][0]

    refusals = (jinja2.TemplateError, TypeError, ValueError)
    try:
      return attempt(len(messages))
    except refusals as e:
      reason = str(e).split("\n")[0]
    for n in range(1, len(messages)):
      try:
        attempt(n)
      except refusals:
        raise ChatError(n - 1, f"the chat template refuses: {reason}") from None
    raise ChatError(max(len(messages) - 1, 0), f"the chat template refuses: {reason}")

  def skeleton(self, roles: tuple[str, ...], generation: bool) -> Layout:
    """Returns the layout for these roles, unchecked as to agents' turns; computed once.

    Raises:
      ChatError: a content is left out, moved, repeated or changed.
    """
    key = roles, generation
    if key not in self._layouts:
      marks = [f"\ue000{i}\ue001" for i in range(len(roles))]
      padded = [(role, _BEFORE + mark + _AFTER) for role, mark in zip(roles, marks, strict=True)]
      parts = _MARK.split(self.render(padded, generation))
      found = [int(i) for i in parts[2::4]]
      for i in range(len(roles)):
        if i not in found:
          raise ChatError(i, f"the chat template leaves the content of this {roles[i]} turn out")
      if found != list(range(len(roles))):
        raise ChatError(0, "the chat template moves or repeats contents")
      trims = tuple((left is None, right is None)
                    for left, right in zip(parts[1::4], parts[3::4], strict=True))
      layout = Layout(tuple(parts[0::4]), trims)
      if layout.compose(marks) != self.render(list(zip(roles, marks, strict=True)), generation):
        raise ChatError(0, "the chat template changes contents")
      self._layouts[key] = layout
    return self._layouts[key]

  def layout(self, roles: tuple[str, ...], generation: bool) -> Layout:
    """Returns the layout, with every prompt on the way proved to be a prefix of it.

    Raises:
      ChatError: as `skeleton`, or an agent's turn that starts or ends differently here.
    """
    layout = self.skeleton(roles, generation)
    before, behind = self.reply
    for i, role in enumerate(roles):
      if role != "assistant":
        continue
      prompt = self.skeleton(roles[:i], True)
      if (layout.literals[:i + 1] != (*prompt.literals[:i], prompt.literals[i] + before)
          or layout.trims[:i] != prompt.trims or layout.trims[i] != self.reply_trims):
        raise ChatError(i, "the conversation so far does not start with the prompt the agent was given")
      if not layout.literals[i + 1].startswith(behind + self.terminator):
        raise ChatError(i, f"the agent's turn does not end with {self.terminator!r}")
    return layout

  def literals(self) -> list[str]:
    """Returns the literal texts seen so far."""
    return [text for layout in self._layouts.values() for text in layout.literals]

  def supports(self, *roles: str) -> bool:
    """Whether a conversation of these roles can be held."""
    try:
      self.layout(roles, False)
    except ChatError:
      return False
    return True
