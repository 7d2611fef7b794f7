#!/bin/sh
# Fills the environment into alertmanager.yml, which Alertmanager does not do itself, then becomes the command that is given.
set -eu

refuse() {
    echo "error: $1" >&2
    exit 2
}

topic=${ALERTS_TOPIC_ARN:-} region=${AWS_REGION:-} endpoint=${AWS_ENDPOINT_URL:-}
template=$(dirname "$0")/alertmanager.yml
made=${TMPDIR:-/tmp}/alertmanager.yml

# Nothing that could end a word of the YAML gets into it.
case $topic in
    *[!A-Za-z0-9:._-]*) refuse "ALERTS_TOPIC_ARN is '$topic'; write arn:aws:sns:REGION:ACCOUNT:NAME" ;;
    '' | arn:aws*:sns:?*:?*:?*) ;;
    *) refuse "ALERTS_TOPIC_ARN is '$topic'; write arn:aws:sns:REGION:ACCOUNT:NAME" ;;
esac
case $region in
    *[!a-z0-9-]*) refuse "AWS_REGION is '$region'; write one such as us-east-1" ;;
esac
case $endpoint in
    *[!A-Za-z0-9:/._-]*) refuse "AWS_ENDPOINT_URL is '$endpoint'; write http://HOST:PORT, or leave it empty" ;;
    '' | http://?* | https://?*) ;;
    *) refuse "AWS_ENDPOINT_URL is '$endpoint'; write http://HOST:PORT, or leave it empty" ;;
esac

if [ -z "$topic" ]; then
    echo "ALERTS_TOPIC_ARN is not set: alerts are shown on Alertmanager's page and sent to nobody" >&2
    sed '/sns_configs:$/,$d' "$template" >"$made"
elif [ -z "$region" ]; then
    refuse "AWS_REGION is not set; say where the topic is, such as us-east-1"
else
    sed -e "s|\${ALERTS_TOPIC_ARN}|$topic|; s|\${AWS_REGION}|$region|; s|\${AWS_ENDPOINT_URL}|$endpoint|" "$template" >"$made"
fi
exec "$@"
