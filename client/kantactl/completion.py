"""The completion scripts of shells: each hands the words up to the cursor to `kantactl --complete` (`completing`).

In bash a `:` or `=` in a word begins a new one for readline, but not for the command line: the words are put
together again, and what stands before the last such character is taken off what is offered. What is
offered is quoted for the shell, and no space follows a path, because it may go on.
"""

from typing import Final

BASH: Final = r"""_kantactl() {
    local line="${COMP_LINE:0:COMP_POINT}" word cut candidate
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word="${words[-1]}"
    cut="${word%"${word##*[:=]}"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ $candidate == /* ]] && compopt -o nospace
        printf -v candidate %q "$candidate"
        COMPREPLY+=("${candidate#"$cut"}")
    done < <(command kantactl --complete "${words[@]:1}" 2>/dev/null)
    ((${#COMPREPLY[@]})) || compopt -o default
}
complete -F _kantactl kantactl
"""

ZSH: Final = r"""#compdef kantactl
_kantactl() {
    local -a found
    found=("${(@f)$(command kantactl --complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( $#found )); then
        compadd -S '' -M 'r:|/=*' -- ${(M)found:#/*}
        compadd -- ${found:#/*}
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _kantactl "$@"; else compdef _kantactl kantactl; fi
"""

FISH: Final = r"""function __kantactl
    set -l words (commandline -opc) (commandline -ct)
    command kantactl --complete $words[2..] 2>/dev/null
end
complete -c kantactl -a '(__kantactl)'
"""

SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}
