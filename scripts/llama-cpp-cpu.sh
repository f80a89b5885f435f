#!/usr/bin/env bash
# llama.cpp's own server on a CPU, in a folder of its own, to try the backends against (docs/api-models.md).
#
#   scripts/llama-cpp-cpu.sh install [DIR]          100 MB; DIR is .llama-cpp-cpu when absent
#   scripts/llama-cpp-cpu.sh serve MODEL PORT [DIR] serve a GGUF file on 127.0.0.1; up in seconds
#
# N_CTX is the context of every slot (1024), SLOTS how many requests run at once (1), THREADS its threads (1).
set -euo pipefail

VERSION=2026.10.11549 # of xllamacpp: llama.cpp built into a Python wheel, with its server
PYTHON=${PYTHON:-python3}

install() {
    local dir=${1:-.llama-cpp-cpu}
    if [[ -d $dir/xllamacpp-$VERSION.dist-info ]]; then
        echo "$dir: xllamacpp $VERSION is there"
        return
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$dir" \
        "xllamacpp==$VERSION"
    echo "$dir: xllamacpp $VERSION installed"
}

serve() {
    local model=$1 port=$2 dir=${3:-.llama-cpp-cpu}
    if [[ ! -d $dir/xllamacpp-$VERSION.dist-info ]]; then
        echo "$dir: xllamacpp $VERSION is not there; run $0 install $dir" >&2
        exit 2
    fi
    # What is behind the # of the address: the file as it is given. Keys and values are kept in fp32, so that a file of
    # fp32 weights gives the numbers of fp32.
    PYTHONPATH=$dir exec "$PYTHON" - "$model" "$port" "${N_CTX:-1024}" "${SLOTS:-1}" "${THREADS:-1}" <<'PYTHON'
import signal
import sys

import xllamacpp

model, port, n_ctx, slots, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames, params.port = ["127.0.0.1"], port
params.n_ctx, params.n_parallel = n_ctx * slots, slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
PYTHON
}

case ${1:-} in
    install) install "${@:2}" ;;
    serve) (($# >= 3)) || { sed -n '2,7p' "$0" >&2; exit 2; }; serve "${@:2}" ;;
    *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
