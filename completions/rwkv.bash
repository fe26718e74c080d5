# bash completion for rwkv
_rwkv_models() {
  local name
  COMPREPLY=($(compgen -f -- "$1"))
  while read -r name; do
    [[ "$name" == "$1"* ]] && COMPREPLY+=("$name")
  done < <(rwkv models --names 2>/dev/null)
}
_rwkv() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
  local IFS=$'\n'
  case "$previous" in
    --compare|--errors|--file|--input|--lora|--output|--plot|--save-state|--state|--tokenizer|-f|-i|-o) COMPREPLY=($(compgen -f -- "$current")); return ;;
    --model|-m) _rwkv_models "$current"; return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="chat generate chats state info bench download models convert cache config doctor completion --help --version"
    COMPREPLY=($(IFS=' '; compgen -W "$words" -- "$current"))
    return
  fi
  case "${COMP_WORDS[1]}" in
    chat) words="--continue --resume --fork --name --file --system --state --think --prefill --max-tokens --interactive --rebuild --no-cache --no-save --temperature --top-p --top-k --min-p --presence --frequency --penalty-decay --sampler-order --ban --seed --model --lora --tokenizer --template --strategy --vram-budget --ram-budget --device --dtype --engine --kernels --threads --quiet --verbose --debug --help" ;;
    generate) words="--file --no-stdin --null --chat --raw --system --think --max-tokens --stop --state --no-cache --save-state --prompt-tokens --output --extract --samples --logprobs --echo --json --input --format --jobs --skip --limit --dry-run --no-overrides --unordered --errors --retry-errors --restart --ray-address --temperature --top-p --top-k --min-p --presence --frequency --penalty-decay --sampler-order --ban --seed --model --lora --tokenizer --template --strategy --vram-budget --ram-budget --device --dtype --engine --kernels --threads --quiet --verbose --debug --help" ;;
    chats) words="ls show search export import rename rm md json jsonl openai --tree --format --output --all --model --force --yes --json --quiet --verbose --debug --help" ;;
    state) words="ls make feed show verify export import rm gc rebuild --file --force --every --dry-run --yes --json --model --lora --tokenizer --template --strategy --vram-budget --ram-budget --device --dtype --engine --kernels --threads --quiet --verbose --debug --help" ;;
    info) words="--json --tensors --plan --strategy --vram-budget --ram-budget --quiet --verbose --debug --help" ;;
    bench) words="--prefill --decode --depth --batch --repeat --quick --file --state --format --json --output --compare --plot --model --tokenizer --strategy --device --dtype --engine --kernels --threads --quiet --verbose --debug --help" ;;
    download) words="--list --json --output --revision --force --offline --endpoint --connections --give-up --quiet --verbose --debug --help" ;;
    models) words="ls show default alias add verify rm --paths --names --unset --remove --name --yes --json --quiet --verbose --debug --help" ;;
    convert) words="--to --dtype --lora --output --force --threads --quiet --verbose --debug --help" ;;
    cache) words="rm --all --paths --quiet --verbose --debug --help" ;;
    config) words="show get set unset path model lora tokenizer template strategy device dtype engine threads kernels vram_budget ram_budget system think max_tokens seed temperature top_p top_k min_p presence frequency penalty_decay sampler_order state_room --origin --json --quiet --verbose --debug --help" ;;
    doctor) words="--build --torch --json --quiet --verbose --debug --help" ;;
    completion) words="bash zsh fish powershell --quiet --verbose --debug --help" ;;
  esac
  local choices="${words%%--*}"
  if [ "$COMP_CWORD" -eq 2 ] && [ -n "$choices" ] && [[ "$current" != -* ]]; then
    COMPREPLY=($(IFS=' '; compgen -W "$choices" -- "$current"))
    return
  fi
  case "$current" in
    -*) COMPREPLY=($(IFS=' '; compgen -W "$words" -- "$current")) ;;
    *)
      case "${COMP_WORDS[1]}" in
        models|info|convert) _rwkv_models "$current" ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
      esac
      COMPREPLY+=($(IFS=' '; compgen -W "$choices" -- "$current")) ;;
  esac
}
complete -o filenames -F _rwkv rwkv
