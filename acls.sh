#!/bin/sh
# Grants each service the rights (ACLs) that it needs on a Kafka with an authorizer, and no others:
#
#   KAFKA_BOOTSTRAP_SERVERS=kafka-1.example.com:9093 COMMAND_CONFIG=admin.properties ./acls.sh --add
#
# --remove takes them back. It needs kafka-acls of any Kafka distribution (KAFKA_ACLS names it where
# it is called otherwise). COMMAND_CONFIG holds the client settings of a user who may alter ACLs.
set -eu

action=${1:?--add or --remove}
acls=${KAFKA_ACLS:-kafka-acls}
servers=${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}

# The same names as in the settings of the services.
data=${DATA_TOPIC:-queueing.data}
model=${MODEL_TOPIC:-queueing.model}
prediction=${PREDICTION_TOPIC:-streaming.prediction}
group=${GROUP_ID:-predictor}
label=${LABEL_TOPIC:-${data%.data}.label}
schema=$data.schema rejected=$data.rejected status=$model.status label_rejected=$label.rejected

# Who they are: a SCRAM user's name, or the subject of a client certificate (CN=predictor,O=…).
datagenerator=${DATAGENERATOR:-datagenerator}
modelgenerator=${MODELGENERATOR:-modelgenerator}
predictor=${PREDICTOR:-predictor}
verifier=${VERIFIER:-} # runs predictor.verify; nobody by default, the predictor may, too
operator=${OPERATOR:-} # runs predictor.reset; nobody by default

# allow USER OPERATIONS RESOURCE… grants each operation on each resource.
allow() {
    [ "$1" ] || return 0
    user=$1 operations=$2
    shift 2
    for operation in $operations; do set -- "$@" --operation "$operation"; done
    "$acls" --bootstrap-server "$servers" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \
        "$action" --force --allow-principal "User:$user" "$@"
}

# A topic's name holds no blank: what this writes may be split at them.
topics() { printf -- '--topic %s ' "$@"; }

source=$(topics "$data" "$schema" "$label")
models=$(topics "$model" "$status")
output=$(topics "$prediction" "$rejected" "$label_rejected")

# Read and Write include Describe.
# shellcheck disable=SC2086 # split on purpose
{
    allow "$datagenerator" "Read Write" $source

    allow "$modelgenerator" Read $source $models
    allow "$modelgenerator" Write --topic "$model" --transactional-id "$model-publisher"

    allow "$predictor" Read $source $models $output --group "$group"
    allow "$predictor" Write $output --topic "$status"
    # One transactional id for each replica.
    allow "$predictor" Write --resource-pattern-type prefixed --transactional-id "$group-"

    allow "$verifier" Read $source $models $output
    allow "$verifier" Describe --group "$group"

    allow "$operator" "Describe Delete" $output --group "$group"

    # CREATE=0 if you make the topics beforehand, with as many partitions as DATA_PARTITIONS says.
    if [ "${CREATE:-1}" = 1 ]; then
        allow "$datagenerator" "Create Alter" $source
        allow "$modelgenerator" "Create Alter" $source $models
        allow "$predictor" "Create Alter" $source $models $output
    fi
}
