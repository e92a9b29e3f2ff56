# Sourced by demo.sh and test.sh: a virtual environment in .venv with the pinned packages, made once.
#   PYTHON       interpreter to use (default: the newest of python3.13, 3.12, 3.11, python3)
#   TORCH_INDEX  package index for PyTorch; on a Linux machine without an NVIDIA GPU
#                https://download.pytorch.org/whl/cpu saves gigabytes of CUDA libraries
#   EXTRAS       optional packages of pyproject.toml, added to those that are there (default: dev)
suitable() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if command -v "$candidate" >/dev/null && suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: Python 3.11, 3.12 or 3.13 (with venv) is needed; install one, or name it: PYTHON=/path/to/python3.12" >&2
    exit 2
}

extras=${EXTRAS:-dev}
stamp=$(cat pyproject.toml constraints.txt | cksum)
installed=""
if [ "$(sed -n 1p .venv/stamp 2>/dev/null)" = "$stamp" ]; then
    installed=$(sed -n 2p .venv/stamp)
fi
missing=""
for extra in ${extras//,/ }; do
    case ",$installed," in
        *",$extra,"*) ;;
        *) missing="$missing${missing:+,}$extra" ;;
    esac
done
if [ -n "$missing" ]; then
    if [ -z "$installed" ]; then
        python=$(find_python) || exit 2
        echo "setup: installing into .venv with $("$python" --version) (once; a few minutes)"
        "$python" -m venv .venv
        .venv/bin/python -m pip install -q --disable-pip-version-check ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
            "$(grep '^torch==' constraints.txt)"
    else
        echo "setup: adding what $missing needs to .venv (once)"
    fi
    .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$missing]"
    printf '%s\n' "$stamp" "$installed${installed:+,}$missing" >.venv/stamp
fi
export PATH="$PWD/.venv/bin:$PATH"
