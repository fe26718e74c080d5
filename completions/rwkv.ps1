# PowerShell completion for rwkv
Register-ArgumentCompleter -Native -CommandName rwkv -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $flags = @{
    'chat' = @('--continue', '--resume', '--fork', '--name', '--file', '--system', '--state', '--think', '--prefill', '--max-tokens', '--interactive', '--rebuild', '--no-cache', '--no-save', '--temperature', '--top-p', '--top-k', '--min-p', '--presence', '--frequency', '--penalty-decay', '--sampler-order', '--ban', '--seed', '--model', '--lora', '--tokenizer', '--template', '--strategy', '--vram-budget', '--ram-budget', '--device', '--dtype', '--engine', '--kernels', '--threads', '--quiet', '--verbose', '--debug', '--help')
    'generate' = @('--file', '--no-stdin', '--null', '--chat', '--raw', '--system', '--think', '--max-tokens', '--stop', '--state', '--no-cache', '--save-state', '--prompt-tokens', '--output', '--extract', '--samples', '--logprobs', '--echo', '--json', '--input', '--format', '--jobs', '--skip', '--limit', '--dry-run', '--no-overrides', '--unordered', '--errors', '--retry-errors', '--restart', '--ray-address', '--temperature', '--top-p', '--top-k', '--min-p', '--presence', '--frequency', '--penalty-decay', '--sampler-order', '--ban', '--seed', '--model', '--lora', '--tokenizer', '--template', '--strategy', '--vram-budget', '--ram-budget', '--device', '--dtype', '--engine', '--kernels', '--threads', '--quiet', '--verbose', '--debug', '--help')
    'chats' = @('--tree', '--format', '--output', '--all', '--model', '--force', '--yes', '--json', '--quiet', '--verbose', '--debug', '--help')
    'state' = @('--file', '--force', '--every', '--dry-run', '--yes', '--json', '--model', '--lora', '--tokenizer', '--template', '--strategy', '--vram-budget', '--ram-budget', '--device', '--dtype', '--engine', '--kernels', '--threads', '--quiet', '--verbose', '--debug', '--help')
    'info' = @('--json', '--tensors', '--plan', '--strategy', '--vram-budget', '--ram-budget', '--quiet', '--verbose', '--debug', '--help')
    'bench' = @('--prefill', '--decode', '--depth', '--batch', '--repeat', '--quick', '--file', '--state', '--format', '--json', '--output', '--compare', '--plot', '--model', '--tokenizer', '--strategy', '--device', '--dtype', '--engine', '--kernels', '--threads', '--quiet', '--verbose', '--debug', '--help')
    'download' = @('--list', '--json', '--output', '--revision', '--force', '--offline', '--endpoint', '--connections', '--give-up', '--quiet', '--verbose', '--debug', '--help')
    'models' = @('--paths', '--names', '--unset', '--remove', '--name', '--yes', '--json', '--quiet', '--verbose', '--debug', '--help')
    'convert' = @('--to', '--dtype', '--lora', '--output', '--force', '--threads', '--quiet', '--verbose', '--debug', '--help')
    'cache' = @('--all', '--paths', '--quiet', '--verbose', '--debug', '--help')
    'config' = @('--origin', '--json', '--quiet', '--verbose', '--debug', '--help')
    'doctor' = @('--build', '--torch', '--json', '--quiet', '--verbose', '--debug', '--help')
    'completion' = @('--quiet', '--verbose', '--debug', '--help')
  }
  $words = $commandAst.CommandElements | ForEach-Object { $_.ToString() }
  $command = if ($words.Count -gt 1) { $words[1] } else { '' }
  $before = if ($words.Count -gt 2) { $words[-1] } else { '' }
  if ($wordToComplete -ne '' -and $words.Count -gt 2) { $before = $words[-2] }
  $choices = if (@('-m', '--model') -contains $before) { rwkv models --names 2>$null }
    elseif ($flags.ContainsKey($command)) { $flags[$command] } else { $flags.Keys }
  $choices | Where-Object { $_ -like "$wordToComplete*" } |
    ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}
