# fish completion for rwkv
complete -c rwkv -n __fish_use_subcommand -f
complete -c rwkv -n __fish_use_subcommand -a chat -d 'Talk with a model; the conversation is kept.'
complete -c rwkv -n __fish_use_subcommand -a generate -d 'Continue a text, or answer a question about one.'
complete -c rwkv -n __fish_use_subcommand -a chats -d 'List, show, search and export conversations.'
complete -c rwkv -n __fish_use_subcommand -a state -d 'Keep, feed and inspect saved states.'
complete -c rwkv -n __fish_use_subcommand -a info -d 'Tell what a weights or state file is.'
complete -c rwkv -n __fish_use_subcommand -a bench -d 'Measure how fast a model runs here.'
complete -c rwkv -n __fish_use_subcommand -a download -d 'Fetch a published model, by name or from anywhere.'
complete -c rwkv -n __fish_use_subcommand -a models -d 'List, name, check and remove models.'
complete -c rwkv -n __fish_use_subcommand -a convert -d 'Write a model in another format or precision.'
complete -c rwkv -n __fish_use_subcommand -a cache -d 'List packed weights that are kept, or delete them.'
complete -c rwkv -n __fish_use_subcommand -a config -d 'Show the settings, and set them.'
complete -c rwkv -n __fish_use_subcommand -a doctor -d 'Tell what this installation runs with; build the library.'
complete -c rwkv -n __fish_use_subcommand -a completion -d 'Print a completion script for your shell.'
complete -c rwkv -n '__fish_seen_subcommand_from models info convert' -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l continue -d 'Go on with the last conversation'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l resume -d 'Go on with this one, or one with WORDS' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l fork -d 'Go on in a copy of one, from a turn of it' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l name -d 'What the conversation is called' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l file -d 'Read a file first' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l system -d 'System text' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l state -d 'Begin from a saved state' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l think -d 'Off, fast, short, on or long, if the model can' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l prefill -d 'What the first answer begins with' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l max-tokens -d 'Longest answer, in tokens (4096)' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l interactive -d 'After piped text, go on at the keyboard'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l rebuild -d 'Read a conversation again with another model'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l no-cache -d 'Keep and use no states of prompts'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l no-save -d 'Leave nothing on the disk'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l temperature -d '0: always the likeliest token' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l top-p -d 'Keep the likeliest up to this sum' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l top-k -d 'Keep the N likeliest; 0: all' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l min-p -d 'Keep those this likely, relatively' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l presence -d 'Penalty of every used token' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l frequency -d 'Penalty of each use' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l penalty-decay -d 'Fading of penalties a token' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l sampler-order -d 'rwkv or openai: temperature last or first' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l ban -d 'A token never to use' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l seed -d 'Makes the random numbers repeat' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l model -d 'Weights file, installed model or ’demo’' -r -F -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l lora -d 'Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l tokenizer -d 'Instead of the one the vocabulary tells' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l template -d 'Chat format: world, g1, raven, pile, demo' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l strategy -d '’auto’, or as in ’cuda fp16 *9 -> cpu fp32’' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l vram-budget -d 'Most bytes of a card, such as 3g' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l ram-budget -d 'Most bytes of memory, such as 8g' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l device -d 'Such as cpu, cuda or mps' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l dtype -d 'fp32, bf16, fp16, int8, int4; else the file’s' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l engine -d 'native or torch; else the best. ray: a cluster' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l kernels -d 'On CUDA: auto, torch or cuda' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l threads -d 'Threads on a CPU' -x
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from chat' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l file -d 'Read a file; ’-’ is stdin' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l no-stdin -d 'Leave stdin alone, in loops that read it'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l null -d 'Prompts of -i, and answers of -k, end with NUL'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l chat -d 'Answer as a chat turn'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l raw -d 'Continue exactly the given text'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l system -d 'System text; implies --chat' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l think -d 'Off, fast, short, on or long; for chat turns' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l max-tokens -d 'Longest answer, in tokens (512; chat 4096)' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l stop -d 'End before this text' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l state -d 'Go on from a saved state' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l no-cache -d 'Keep and use no states of prompts'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l save-state -d 'Save the state at the end' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l prompt-tokens -d 'Read token ids such as 1,2,3 instead of text' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l output -d 'Write there instead of stdout' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l extract -d 'Only the first fenced block of code'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l samples -d 'K answers from one reading' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l logprobs -d 'Log probabilities, and the N likeliest' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l echo -d 'Write the prompt before the answer'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l json -d 'One JSON object with text and figures'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l input -d 'Answer each row of a file; ’-’ is stdin' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l format -d 'jsonl, openai, csv, tsv, lines; else as it looks' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l jobs -d 'Rows at once; else as memory allows' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l skip -d 'Pass over the first rows' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l limit -d 'Answer so many rows at most' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l dry-run -d 'Show what would be asked, and how long it would take'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l no-overrides -d 'Fields such as temperature set nothing'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l unordered -d 'Leave rows in the order in which they end'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l errors -d 'Write rows that failed there' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l retry-errors -d 'Ask again the rows that failed'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l restart -d 'Throw away what an earlier run wrote'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l ray-address -d 'Cluster of --engine ray; else auto' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l temperature -d '0: always the likeliest token' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l top-p -d 'Keep the likeliest up to this sum' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l top-k -d 'Keep the N likeliest; 0: all' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l min-p -d 'Keep those this likely, relatively' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l presence -d 'Penalty of every used token' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l frequency -d 'Penalty of each use' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l penalty-decay -d 'Fading of penalties a token' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l sampler-order -d 'rwkv or openai: temperature last or first' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l ban -d 'A token never to use' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l seed -d 'Makes the random numbers repeat' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l model -d 'Weights file, installed model or ’demo’' -r -F -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l lora -d 'Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l tokenizer -d 'Instead of the one the vocabulary tells' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l template -d 'Chat format: world, g1, raven, pile, demo' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l strategy -d '’auto’, or as in ’cuda fp16 *9 -> cpu fp32’' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l vram-budget -d 'Most bytes of a card, such as 3g' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l ram-budget -d 'Most bytes of memory, such as 8g' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l device -d 'Such as cpu, cuda or mps' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l dtype -d 'fp32, bf16, fp16, int8, int4; else the file’s' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l engine -d 'native or torch; else the best. ray: a cluster' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l kernels -d 'On CUDA: auto, torch or cuda' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l threads -d 'Threads on a CPU' -x
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from generate' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -f -a 'ls show search export import rename rm md json jsonl openai'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l tree -d 'With show: all turns, not only the last way'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l format -d 'Of export' -x
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l output -d 'With export: write there, not to stdout' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l all -d 'With export, rm: all conversations'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l model -d 'With import: whose tokens messages get' -r -F -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l force -d 'With export: replace a file'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l yes -d 'With rm: do not ask'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l json -d 'With ls, search: one JSON object a line'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from chats' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from state' -f -a 'ls make feed show verify export import rm gc rebuild'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l file -d 'With make, feed: read' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from state' -l force -d 'Replace a state of that name'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l every -d 'With feed: save this often' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l dry-run -d 'With gc: only tell what would go'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l yes -d 'With rm: do not ask'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l json -d 'With ls, show: JSON'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l model -d 'Weights file, installed model or ’demo’' -r -F -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l lora -d 'Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from state' -l tokenizer -d 'Instead of the one the vocabulary tells' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from state' -l template -d 'Chat format: world, g1, raven, pile, demo' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l strategy -d '’auto’, or as in ’cuda fp16 *9 -> cpu fp32’' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l vram-budget -d 'Most bytes of a card, such as 3g' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l ram-budget -d 'Most bytes of memory, such as 8g' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l device -d 'Such as cpu, cuda or mps' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l dtype -d 'fp32, bf16, fp16, int8, int4; else the file’s' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l engine -d 'native or torch; else the best. ray: a cluster' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l kernels -d 'On CUDA: auto, torch or cuda' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l threads -d 'Threads on a CPU' -x
complete -c rwkv -n '__fish_seen_subcommand_from state' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from state' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l json -d 'One JSON object'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l tensors -d 'List every tensor as well'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l plan -d 'Tell how it would run here: memory, speed'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l strategy -d 'Plan for this one; else for the best here' -x
complete -c rwkv -n '__fish_seen_subcommand_from info' -l vram-budget -d 'Most bytes of a card, such as 3g' -x
complete -c rwkv -n '__fish_seen_subcommand_from info' -l ram-budget -d 'Most bytes of memory, such as 8g' -x
complete -c rwkv -n '__fish_seen_subcommand_from info' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from info' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l prefill -d 'Tokens to read at once (512)' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l decode -d 'Tokens to generate (128)' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l depth -d 'Tokens read before (0,4096)' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l batch -d 'Sequences to generate side by side (1)' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l repeat -d 'Times each test is run (5)' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l quick -d 'The same as -p 128 -n 32 -d 0,512 -r 2'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l file -d 'Read this text instead of a built-in one' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l state -d 'One more depth: that of a saved state' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l format -d 'Table, md, json or csv' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l json -d 'The same as --format json'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l output -d 'Write there instead of stdout' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l compare -d 'Against an earlier record, made with --json' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l plot -d 'Draw time against position, as .png or .svg' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l model -d 'File, name or ’demo’' -r -F -a '(rwkv models --names 2>/dev/null)'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l tokenizer -d 'Instead of the one that belongs' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l strategy -d '’auto’, or devices as in ’cpu bf16’' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l device -d 'Such as cpu, cuda or mps' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l dtype -d 'Precisions of the weights' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l engine -d 'native, torch or both' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l kernels -d 'On CUDA: auto, torch or cuda' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l threads -d 'Threads on a CPU' -x
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from bench' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l list -d 'Show what can be downloaded'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l json -d 'The list, or events, as JSON on stdout'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l output -d 'Where to; else the models folder' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from download' -l revision -d 'Branch, tag or commit' -x
complete -c rwkv -n '__fish_seen_subcommand_from download' -l force -d 'Replace another file of the same name'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l offline -d 'Use what is here; never ask the network'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l endpoint -d 'A mirror of the hub, as HF_ENDPOINT names one' -x
complete -c rwkv -n '__fish_seen_subcommand_from download' -l connections -d 'Ranges at a time; 4' -x
complete -c rwkv -n '__fish_seen_subcommand_from download' -l give-up -d 'Stop when no byte came for so long; 10. 0: never' -x
complete -c rwkv -n '__fish_seen_subcommand_from download' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from download' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from models' -f -a 'ls show default alias add verify rm'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l paths -d 'With ls: only the files’ paths'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l names -d 'With ls: only what -m understands, a name a line'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l unset -d 'With default: the newest is used again'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l remove -d 'With alias: forget the name'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l name -d 'With add: else that of the file' -x
complete -c rwkv -n '__fish_seen_subcommand_from models' -l yes -d 'With rm: do not ask'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l json -d 'With ls, show, verify: JSON'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from models' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l to -d 'pth, safetensors, hf or packed; else as -o tells' -x
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l dtype -d 'int8, int4, bf16, fp16 or fp32; else the model’s' -x
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l lora -d 'Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l output -d 'Else a new name among the models' -r -F
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l force -d 'Replace a file that is there'
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l threads -d 'Threads' -x
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from convert' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -f -a 'rm'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l all -d 'With rm: delete all of it'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l paths -d 'Print the files’ paths instead of the table'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from cache' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from config' -f -a 'show get set unset path model lora tokenizer template strategy device dtype engine threads kernels vram_budget ram_budget system think max_tokens seed temperature top_p top_k min_p presence frequency penalty_decay sampler_order state_room'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l origin -d 'With show: where each value comes from'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l json -d 'With show: one JSON object'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from config' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l build -d 'Compile the native library into the cache folder'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l torch -d 'Import torch, and ask it for devices'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l json -d 'One JSON object'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from doctor' -l help -d 'Show this page'
complete -c rwkv -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish powershell'
complete -c rwkv -n '__fish_seen_subcommand_from completion' -l quiet -d 'Nothing on stderr but errors'
complete -c rwkv -n '__fish_seen_subcommand_from completion' -l verbose -d 'More on stderr'
complete -c rwkv -n '__fish_seen_subcommand_from completion' -l debug -d 'Show the traceback of an error'
complete -c rwkv -n '__fish_seen_subcommand_from completion' -l help -d 'Show this page'
