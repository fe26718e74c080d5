# bash completion for rwkv
_rwkv() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
  case "$previous" in
    --file|--model|--output|--save-state|--state|--tokenizer|-m|-f|-o) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "chat generate info models completion --help --version" -- "$current"))
    return
  fi
  case "${COMP_WORDS[1]}" in
    chat) words="--continue --system --think --max-tokens --no-save --temperature --top-p --top-k --min-p --presence --frequency --penalty-decay --sampler-order --ban --seed --model --tokenizer --template --strategy --device --dtype --threads --quiet --verbose --debug --help" ;;
    generate) words="--file --chat --raw --system --think --max-tokens --stop --state --save-state --prompt-tokens --output --echo --json --temperature --top-p --top-k --min-p --presence --frequency --penalty-decay --sampler-order --ban --seed --model --tokenizer --template --strategy --device --dtype --threads --quiet --verbose --debug --help" ;;
    info) words="--json --tensors --quiet --verbose --debug --help" ;;
    models) words="--paths --quiet --verbose --debug --help" ;;
    completion) words="--quiet --verbose --debug --help" ;;
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}
complete -o filenames -F _rwkv rwkv
