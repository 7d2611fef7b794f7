#!/usr/bin/env bash
# Build the training and the serving image from the commit that is checked out, and push both under its hash.
#
#   infra/ecr_push.sh [--dry-run]
#
# Only what the commit holds goes into an image. The repositories must be there: Terraform makes them. What was pushed
# before is not built again. Needs git, docker and aws, and prints one line for each image: its name and its digest.
set -euo pipefail

readonly dockerfile=modules/fraud_detection/Dockerfile
readonly targets=(train serve)
dry_run=

main() {
    # What is shown is no result of the functions that show it.
    exec 3>&1
    read_words "$@"
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    check
    local commit registry target
    commit=$(git rev-parse HEAD)
    registry=$(registry_of "fraud-${targets[0]}")
    log_in "$registry"
    for target in "${targets[@]}"; do
        push "$registry/fraud-$target" "$target" "$commit"
    done
}

read_words() {
    while (($#)); do
        case $1 in
            --dry-run) dry_run=yes ;;
            -h | --help)
                sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
                exit 0
                ;;
            *) fail "there is no option '$1'; say --dry-run or nothing" ;;
        esac
        shift
    done
}

check() {
    local program changed
    for program in git docker aws; do
        [[ -n $dry_run && $program != git ]] && continue
        command -v "$program" >/dev/null || fail "there is no program '$program'; install it"
    done
    [[ -f $dockerfile ]] || fail "there is no $dockerfile to build from"
    changed=$(git status --porcelain) || fail "this is no checkout of git, and images are named after commits"
    [[ -z $changed ]] || fail "some files are not what the commit holds; commit or stash them first: ${changed//$'\n'/,}"
}

# The address before the slash of a repository's name.
registry_of() {
    if [[ -n $dry_run ]]; then
        show aws ecr describe-repositories --repository-names "$1" --query "repositories[0].repositoryUri" --output text
        echo REGISTRY
        return
    fi
    local uri
    uri=$(aws ecr describe-repositories --repository-names "$1" --query "repositories[0].repositoryUri" --output text) ||
        fail "there is no repository '$1', or AWS does not let you see it; Terraform makes it"
    echo "${uri%%/*}"
}

# The password goes from one program to the other and stands in no argument.
log_in() {
    if [[ -n $dry_run ]]; then
        show aws ecr get-login-password '|' docker login --username AWS --password-stdin "$1"
    else
        aws ecr get-login-password | docker login --username AWS --password-stdin "$1" >&2 ||
            fail "docker cannot log in to $1"
    fi
}

push() {
    local uri=$1 target=$2 commit=$3 digest
    # SageMaker takes one image for one machine, and not the list that attestations would make of it.
    export BUILDX_NO_DEFAULT_ATTESTATIONS=1
    local build=(
        docker build --platform linux/amd64 --file "$dockerfile" --target "$target"
        --build-arg "GIT_COMMIT=$commit" --tag "$uri:$commit" -
    )
    if [[ -n $dry_run ]]; then
        show git archive "$commit" "|" "${build[@]}"
        show docker push "$uri:$commit"
        return
    fi
    if ! digest=$(digest_of "$target" "$commit" 2>/dev/null); then
        git archive "$commit" | "${build[@]}" >&2 || fail "the image for '$target' cannot be built"
        docker push "$uri:$commit" >&2 || fail "$uri:$commit cannot be pushed"
        digest=$(digest_of "$target" "$commit") || fail "$uri:$commit was pushed and is not there"
    fi
    echo "$uri:$commit $digest"
}

digest_of() {
    aws ecr describe-images --repository-name "fraud-$1" --image-ids "imageTag=$2" \
        --query "imageDetails[0].imageDigest" --output text
}

show() {
    echo "$*" >&3
}

fail() {
    echo "error: $*" >&2
    exit 1
}

main "$@"
