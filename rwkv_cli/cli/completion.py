"""`rwkv completion`: completion scripts, made from the commands and flags that there are."""

from __future__ import annotations

from collections.abc import Callable

import click

from rwkv_cli.cli.app import COMMANDS, program
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.cli.settings import keys
from rwkv_cli.render.streams import stdout_sink

_FILE_FLAGS = {
    "--file", "--input", "--state", "--save-state", "--output", "--errors", "--tokenizer",
    "--compare", "--plot", "--lora",
}  # fmt: skip

# What is asked when a model may follow; these commands take one without a flag.
_NAMES = "rwkv models --names 2>/dev/null"
_TAKE_MODELS = ("models", "info", "convert")

# Command to its flags, each with a line of help and what follows it: "file", "model", "value" or
# nothing.
Flags = dict[str, list[tuple[str, str, str]]]


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
@common_options
def completion(shell: str, quiet: bool, verbose: bool, debug: bool) -> None:
    """Print a completion script for your shell.

    \b
    rwkv completion bash >> ~/.bash_completion
    rwkv completion zsh > ~/.zfunc/_rwkv    (or any other folder of your $fpath)
    rwkv completion fish > ~/.config/fish/completions/rwkv.fish
    rwkv completion powershell >> $PROFILE
    """
    stdout_sink().write(script(shell).encode())


def script(shell: str) -> str:
    """Write the completion script of a shell."""
    return _WRITERS[shell](_flags())


def _flags() -> Flags:
    """List the flags of every command."""
    group = program()
    context = click.Context(group)
    table: Flags = {}
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        rows = [
            (flag, (option.help or "").rstrip("."), _argument(flag, option))
            for option in command.params
            if isinstance(option, click.Option)
            for flag in option.opts
            if flag.startswith("--")
        ]
        table[name] = rows
    return table


def _argument(flag: str, option: click.Option) -> str:
    """Say what follows a flag."""
    if option.is_flag:
        return ""
    if flag == "--model":
        return "model"
    is_file = flag in _FILE_FLAGS and option.metavar != "FORMAT"
    return "file" if is_file else "value"


def _choices(command: str) -> list[str]:
    """List what the argument of a command can be, where that is settled."""
    group = program()
    found = group.get_command(click.Context(group), command)
    kinds = [param.type for param in found.params] if found else []
    words = [str(w) for kind in kinds if isinstance(kind, click.Choice) for w in kind.choices]
    return [*words, *keys()] if command == "config" else words


def _bash(table: Flags) -> str:
    cases = "\n".join(
        f'    {name}) words="{" ".join([*_choices(name), *(row[0] for row in rows)])}" ;;'
        for name, rows in table.items()
    )
    return f"""# bash completion for rwkv
_rwkv_models() {{
  local name
  COMPREPLY=($(compgen -f -- "$1"))
  while read -r name; do
    [[ "$name" == "$1"* ]] && COMPREPLY+=("$name")
  done < <({_NAMES})
}}
_rwkv() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  local IFS=$'\\n'
  case "$previous" in
    {"|".join(sorted(_FILE_FLAGS))}|-f|-i|-o) COMPREPLY=($(compgen -f -- "$current")); return ;;
    --model|-m) _rwkv_models "$current"; return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{" ".join(table)} --help --version"
    COMPREPLY=($(IFS=' '; compgen -W "$words" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  local choices="${{words%%--*}}"
  if [ "$COMP_CWORD" -eq 2 ] && [ -n "$choices" ] && [[ "$current" != -* ]]; then
    COMPREPLY=($(IFS=' '; compgen -W "$choices" -- "$current"))
    return
  fi
  case "$current" in
    -*) COMPREPLY=($(IFS=' '; compgen -W "$words" -- "$current")) ;;
    *)
      case "${{COMP_WORDS[1]}}" in
        {"|".join(_TAKE_MODELS)}) _rwkv_models "$current" ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
      esac
      COMPREPLY+=($(IFS=' '; compgen -W "$choices" -- "$current")) ;;
  esac
}}
complete -o filenames -F _rwkv rwkv
"""


def _zsh(table: Flags) -> str:
    commands = "\n".join(f"    {_quoted(f'{n}:{line}')}" for n, (_, line) in COMMANDS.items())
    cases = []
    for name, rows in table.items():
        specs = " ".join(_quoted(_zsh_flag(*row)) for row in rows)
        choices = " ".join(_choices(name))
        place = "*" if name == "config" else "1"
        last = f"'{place}:choice:({choices})'" if choices else ""
        if name in _TAKE_MODELS:
            last += " '*:model:_rwkv_models'"
        elif not choices:
            last = "'*:file:_files'"
        cases.append(f"    {name}) _arguments {specs} {last} ;;")
    return f"""#compdef rwkv
_rwkv_models() {{
  local -a names=(${{(f)"$({_NAMES})"}})
  compadd -a names
  _files
}}
_rwkv() {{
  local -a commands=(
{commands}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{chr(10).join(cases)}
  esac
}}
# Loaded from a folder of $fpath, this file is the function's own body at its first call.
if [ "$funcstack[1]" = _rwkv ]; then _rwkv "$@"; else compdef _rwkv rwkv; fi
"""


_ZSH_FOLLOWS = {
    "": "", "value": ":value:", "file": ":file:_files", "model": ":model:_rwkv_models",
}  # fmt: skip


def _zsh_flag(flag: str, text: str, argument: str) -> str:
    text = text.replace("[", "(").replace("]", ")").replace(":", " -")
    return f"{flag}[{text}]" + _ZSH_FOLLOWS[argument]


def _fish(table: Flags) -> str:
    lines = ["# fish completion for rwkv", "complete -c rwkv -n __fish_use_subcommand -f"]
    for name, (_, line) in COMMANDS.items():
        lines.append(f"complete -c rwkv -n __fish_use_subcommand -a {name} -d {_quoted(line)}")
    models = f"'({_NAMES})'"
    takes = " ".join(_TAKE_MODELS)
    lines.append(f"complete -c rwkv -n '__fish_seen_subcommand_from {takes}' -a {models}")
    for name, rows in table.items():
        if words := " ".join(_choices(name)):
            condition = f"'__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c rwkv -n {condition} -f -a '{words}'")
        for flag, text, argument in rows:
            follows = {"": "", "value": " -x", "file": " -r -F", "model": f" -r -F -a {models}"}[
                argument
            ]
            condition = f"'__fish_seen_subcommand_from {name}'"
            lines.append(
                f"complete -c rwkv -n {condition} -l {flag[2:]} -d {_quoted(text)}{follows}"
            )
    return "\n".join(lines) + "\n"


def _powershell(table: Flags) -> str:
    lists = {name: ", ".join(f"'{row[0]}'" for row in flags) for name, flags in table.items()}
    rows = "\n".join(f"    '{name}' = @({flags})" for name, flags in lists.items())
    return f"""# PowerShell completion for rwkv
Register-ArgumentCompleter -Native -CommandName rwkv -ScriptBlock {{
  param($wordToComplete, $commandAst, $cursorPosition)
  $flags = @{{
{rows}
  }}
  $words = $commandAst.CommandElements | ForEach-Object {{ $_.ToString() }}
  $command = if ($words.Count -gt 1) {{ $words[1] }} else {{ '' }}
  $before = if ($words.Count -gt 2) {{ $words[-1] }} else {{ '' }}
  if ($wordToComplete -ne '' -and $words.Count -gt 2) {{ $before = $words[-2] }}
  $choices = if (@('-m', '--model') -contains $before) {{ rwkv models --names 2>$null }}
    elseif ($flags.ContainsKey($command)) {{ $flags[$command] }} else {{ $flags.Keys }}
  $choices | Where-Object {{ $_ -like "$wordToComplete*" }} |
    ForEach-Object {{ [System.Management.Automation.CompletionResult]::new($_) }}
}}
"""


def _quoted(text: str) -> str:
    """Quote for a POSIX shell or fish, which differ in nothing used here."""
    return "'" + text.replace("'", "’") + "'"


_WRITERS: dict[str, Callable[[Flags], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
    "powershell": _powershell,
}
