#!/usr/bin/env bash
# Build the image without a container daemon and without an image registry, then check it. Needs root, buildah and
# debootstrap (Debian: apt-get install buildah debootstrap), and package indexes that pip and apt can reach.
#
#   training_containers/build.sh [buildah arguments ...]
#     PROMETHEUS_IMAGE=IMAGE        pull Prometheus from here, e.g. the one that the Dockerfile names
#     PROMETHEUS=FILE               or take this program, its official build; default: Debian 13's, which can do all but
#                                   Entra
#     BASE_IMAGE=python:3.11-slim   pull this base instead of making one from Debian 12 (which brings Python 3.11)
#     TARGET=sagemaker              the variant that runs as root; default: the one that does not
#     TORCH_INDEX=URL               torch's wheel index, as in the Dockerfile (its CUDA index: the GPU image)
#     SMOKE_MODEL=DIR               also serve this model in the new image, ask its health and a question
#
# Arguments go to `buildah build`: --volume for private package folders, --build-arg, --layers, ...
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE="${IMAGE:-opportune-training}"
SUITE=bookworm
LOCAL_BASE=docker.io/library/opportune-base:$SUITE
LOCAL_PROMETHEUS=docker.io/library/opportune-prometheus:local
export STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}" BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"

[ "$(id -u)" = 0 ] || { echo "build.sh: needs root (debootstrap, chroot)" >&2; exit 2; }
tools=(buildah)
[ -n "${BASE_IMAGE:-}" ] || tools+=(debootstrap)
for tool in "${tools[@]}"; do
  command -v "$tool" > /dev/null || { echo "build.sh: $tool is missing; apt-get install $tool" >&2; exit 2; }
done

scratch="$(mktemp -d)"
container=
cleanup() {
  [ -z "$container" ] || buildah rm "$container" > /dev/null
  rm -rf "$scratch"
}
trap cleanup EXIT

make_base() {
  echo "making a base image from Debian $SUITE" >&2
  debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates "$SUITE" "$scratch/root" > "$scratch/log" \
    || { tail -5 "$scratch/log" >&2; exit 1; }
  # as in python:3.11-slim: `python` exists, and pip may install into the system
  ln -s python3 "$scratch/root/usr/bin/python"
  rm -f "$scratch"/root/usr/lib/python3*/EXTERNALLY-MANAGED "$scratch"/root/var/cache/apt/archives/*.deb
  container="$(buildah from scratch)"
  buildah copy --quiet "$container" "$scratch/root" / > /dev/null
  buildah config --cmd python3 "$container"
  buildah commit --quiet "$container" "$LOCAL_BASE" > /dev/null
  buildah rm "$container" > /dev/null
  container=
  rm -rf "$scratch/root"
}

# Debian 13's package, without its dependencies: the program needs the C library only
fetch_prometheus() {
  local apt="$scratch/apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/deb"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN:-http://deb.debian.org/debian} trixie main" \
    > "$apt/sources.list"
  local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  (cd "$apt/deb" && apt-get -q "${options[@]}" update && apt-get -q "${options[@]}" download prometheus) > "$apt/log" 2>&1 \
    || { tail -5 "$apt/log" >&2; exit 1; }
  dpkg-deb -x "$apt"/deb/prometheus_*.deb "$apt/root"
  PROMETHEUS="$apt/root/usr/bin/prometheus"
}

make_prometheus() {
  [ -n "${PROMETHEUS:-}" ] || fetch_prometheus
  container="$(buildah from scratch)"
  buildah copy --quiet "$container" "$PROMETHEUS" /bin/prometheus > /dev/null
  buildah commit --quiet "$container" "$LOCAL_PROMETHEUS" > /dev/null
  buildah rm "$container" > /dev/null
  container=
}

pull=()
if [ -z "${PROMETHEUS_IMAGE:-}" ]; then
  make_prometheus
  PROMETHEUS_IMAGE="$LOCAL_PROMETHEUS"
fi
if [ -z "${BASE_IMAGE:-}" ]; then
  buildah inspect --type image "$LOCAL_BASE" > /dev/null 2>&1 || make_base
  BASE_IMAGE="$LOCAL_BASE"
  [ "$PROMETHEUS_IMAGE" != "$LOCAL_PROMETHEUS" ] || pull=(--pull-never)
fi

buildah build "${pull[@]}" --format docker --file training_containers/sagemaker/Dockerfile \
  --build-arg "PYTHON_IMAGE=$BASE_IMAGE" --build-arg "PROMETHEUS_IMAGE=$PROMETHEUS_IMAGE" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" \
  ${TARGET:+--target "$TARGET"} --tag "$IMAGE" "$@" .

container="$(buildah from --pull-never "$IMAGE")"
user="$(buildah run "$container" -- id -un)"
echo "image $IMAGE: $(buildah run "$container" -- du -shx / 2> /dev/null | cut -f1), runs as $user"
[ "${TARGET:-}" = sagemaker ] || [ "$user" = opportune ] || { echo "build.sh: runs as $user, not opportune" >&2; exit 1; }
buildah run "$container" -- prometheus --version | head -1
buildah run "$container" -- python -m training_containers serve --help > /dev/null
buildah run "$container" -- python -m training_containers train --help > /dev/null

if [ -n "${SMOKE_MODEL:-}" ]; then
  health="$(python3 - training_containers/sagemaker/Dockerfile << 'PYTHON'
import json, re, sys
print(json.loads(re.search(r"HEALTHCHECK.*?CMD \\\s*(\[.*?\])\n", open(sys.argv[1]).read(), re.S)[1])[-1])
PYTHON
  )"
  buildah run --volume "$(realpath "$SMOKE_MODEL"):/model:ro" "$container" -- sh -c '
    python -m training_containers serve --model /model --port 8080 & server=$!
    for _ in $(seq 60); do python -c "$1" 2> /dev/null && break; sleep 1; done
    python -c "$1" && echo healthy
    python -c "import json, urllib.request as u; print(u.urlopen(u.Request(
      \"http://127.0.0.1:8080/predict\", json.dumps({\"question\": \"what is it?\"}).encode())).read().decode())"
    kill $server; wait $server' sh "$health"
fi
