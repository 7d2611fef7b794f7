#!/bin/sh
# Makes the databases when PostgreSQL first starts: each belongs to a user of its own, who can enter no other.
set -eu
for name in journal ledger mlflow; do
    # The password goes from the environment into SQL and stands in no argument.
    psql --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
        --set name="$name" --set variable="$(echo "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD" <<'END'
\getenv password :variable
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
END
done
