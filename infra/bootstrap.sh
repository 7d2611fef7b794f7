#!/usr/bin/env bash
# Make an Ubuntu 22.04 machine the node mlops-core: as user data at its first boot, or by hand; twice is once.
#
#   sudo REPOSITORY_URL=https://HOST/PATH [REVISION=main] infra/bootstrap.sh
#
# It installs Docker with Compose, Python, Git and the AWS CLI, clones the platform into /opt/mlops-platform, writes its
# .env, and starts the stack now and at every boot. Run again, it needs no word: it brings the node to the newest commit
# of the revision, and what stands in .env stays. Terraform says the rest by REGION, PUBLIC_ADDRESS, BUCKET and
# TOPIC_ARN. ROOT is another folder than / to set up, for tests. It prints `mlops-core ready` last.
set -euo pipefail

readonly root=${ROOT:-} home=/opt/mlops-platform
readonly packages=(
    ca-certificates curl docker-buildx docker-compose-v2 docker.io git make openssl python3 python3-pip python3-venv
    python3-virtualenv
)

main() {
    check
    install_packages
    install_aws
    limit_docker
    fetch_platform
    write_settings
    start_at_boot
    systemctl reload-or-restart mlops-platform.service || fail "the stack does not start; look: journalctl -u mlops-platform"
    tell_versions
    echo "mlops-core ready"
}

check() {
    [[ $(id -u) == 0 ]] || fail "only root can set up a machine; say sudo before it"
    local system=unknown
    # shellcheck disable=SC1091 # It is the machine's own.
    [[ -r $root/etc/os-release ]] && system=$(. "$root/etc/os-release" && echo "$ID $VERSION_ID")
    [[ $system == "ubuntu 22.04" ]] || fail "this is '$system' and not 'ubuntu 22.04', which this script knows"
    if [[ -d $root$home/.git ]]; then
        REPOSITORY_URL=${REPOSITORY_URL:-$(git -C "$root$home" config remote.origin.url)}
        REVISION=${REVISION:-$(git -C "$root$home" config mlops.revision || true)}
    fi
    [[ -n ${REPOSITORY_URL:-} ]] || fail "REPOSITORY_URL is not set; say where to clone the platform from"
    [[ $REPOSITORY_URL == https://* ]] || fail "REPOSITORY_URL is '$REPOSITORY_URL'; write https://HOST/PATH"
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # At the first boot Ubuntu's own updates may hold the lock.
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600 -o APT::Update::Error-Mode=any)
    again "${apt[@]}" update || fail "the lists of packages cannot be had; does the machine reach the internet?"
    again "${apt[@]}" install --yes --no-install-recommends "${packages[@]}" || fail "the packages cannot be installed"
}

# Ubuntu's package is version 1; the snap is AWS's own, signed, and kept up to date.
install_aws() {
    command -v aws >/dev/null && return
    again snap install aws-cli --classic || fail "the AWS CLI cannot be installed from the snap aws-cli"
    ln -sf /snap/bin/aws "$root/usr/local/bin/aws"
}

# 30 GB are soon full of logs and old images.
limit_docker() {
    put /etc/systemd/system/mlops-prune.service <<'END'
[Unit]
Description=Remove images and build caches that nothing has used for a week

[Service]
Type=oneshot
ExecStart=/usr/bin/docker image prune --all --force --filter until=168h
ExecStart=/usr/bin/docker builder prune --all --force --filter until=168h
END
    put /etc/systemd/system/mlops-prune.timer <<'END'
[Unit]
Description=Make room on the disk every night

[Timer]
OnCalendar=*-*-* 04:00:00
Persistent=true

[Install]
WantedBy=timers.target
END
    local changed=
    put /etc/docker/daemon.json <<'END'
{"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}, "live-restore": true}
END
    systemctl daemon-reload
    systemctl enable --now docker.service mlops-prune.timer
    [[ -z $changed ]] || systemctl restart docker.service
    id -nG ubuntu | grep -qw docker || usermod --append --groups docker ubuntu
}

fetch_platform() {
    local revision=${REVISION:-main} commit
    if [[ ! -d $root$home/.git ]]; then
        again with_token clone --quiet "$REPOSITORY_URL" "$root$home" ||
            fail "$REPOSITORY_URL cannot be cloned; is it private, then put a token into the secret mlops/git-token"
    fi
    again with_token -C "$root$home" fetch --quiet --tags origin || fail "$REPOSITORY_URL cannot be fetched"
    commit=$(git -C "$root$home" rev-parse --quiet --verify "origin/$revision^{commit}") ||
        commit=$(git -C "$root$home" rev-parse --quiet --verify "$revision^{commit}") ||
        fail "there is no branch, tag or commit '$revision' in $REPOSITORY_URL"
    git -C "$root$home" checkout --quiet --detach "$commit" ||
        fail "$home has changes of its own; take them away: git -C $home status"
    git -C "$root$home" config mlops.revision "$revision"
}

# A private repository's token is asked for at the moment it is needed, and stands in no file and no argument.
with_token() {
    local secret=(aws secretsmanager get-secret-value --secret-id mlops/git-token --query SecretString --output text)
    [[ -z ${REGION:-} ]] || secret+=(--region "$REGION")
    # shellcheck disable=SC2016 # Git runs the helper, and only when a server wants a password.
    GIT_TERMINAL_PROMPT=0 TOKEN_COMMAND="${secret[*]}" \
        git -c credential.helper='!f() { echo username=token; echo "password=$($TOKEN_COMMAND)"; }; f' "$@"
}

write_settings() {
    local settings=(PROFILE=aws COMPOSE_PROFILES= LOCAL_AWS= BIND_ADDRESS=0.0.0.0)
    [[ -z ${REGION:-} ]] || settings+=("AWS_REGION=$REGION")
    [[ -z ${PUBLIC_ADDRESS:-} ]] || settings+=("PUBLIC_HOST=$PUBLIC_ADDRESS")
    [[ -z ${BUCKET:-} ]] || settings+=("BUCKET=$BUCKET")
    [[ -z ${TOPIC_ARN:-} ]] || settings+=("ALERTS_TOPIC_ARN=$TOPIC_ARN")
    "$root$home/infra/make_env.sh" "${settings[@]}" || fail "$home/.env cannot be written"
}

start_at_boot() {
    put /etc/systemd/system/mlops-platform.service <<END
[Unit]
Description=MLOps platform
Requires=docker.service
After=docker.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory=$home
Environment=HOME=/root
ExecStart=/usr/bin/make up
ExecReload=/usr/bin/make up
ExecStop=/usr/bin/make down
TimeoutStartSec=3600

[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl enable mlops-platform.service
}

tell_versions() {
    docker --version
    docker compose version
    python3 --version
    python3 -m pip --version
    python3 -m virtualenv --version
    git --version
    aws --version
}

# Write a file from what comes in, whole, and set `changed`; what holds just that already is left alone.
put() {
    local path=$root$1 new
    mkdir -p "$(dirname "$path")"
    new=$(mktemp "$path.XXXXXX")
    cat >"$new"
    if cmp --silent "$new" "$path"; then
        rm "$new"
        return
    fi
    chmod 644 "$new"
    mv "$new" "$path"
    changed=yes
}

# At the first boot the machine's address comes a moment late, and a mirror may be away for a while.
again() {
    local pause
    for pause in 5 10 20 40 0; do
        "$@" && return
        sleep "$pause"
    done
    return 1
}

fail() {
    echo "error: $*" >&2
    exit 1
}

main "$@"
