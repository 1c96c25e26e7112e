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
verifier=${VERIFIER:-} # runs predictor.verify, predictor.status and the dashboard; nobody by default, the predictor may, too
operator=${OPERATOR:-} # runs predictor.reset; nobody by default

# allow USER OPERATIONS RESOURCE… grants each operation on each resource; nothing to nobody.
allow() {
    [ "$1" ] && [ "$2" ] || return 0
    user=$1 operations=$2
    shift 2
    for operation in $operations; do set -- "$@" --operation "$operation"; done
    "$acls" --bootstrap-server "$servers" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \
        "$action" --force --allow-principal "User:$user" "$@"
}

# topic NAME DATAGENERATOR MODELGENERATOR PREDICTOR VERIFIER OPERATOR [Alter] grants what each does
# with a topic; to services also to create it and, where it may have several, to add partitions.
# CREATE=0 if you make the topics beforehand, with as many partitions as DATA_PARTITIONS says.
topic() {
    make="Create ${7:-}"
    [ "${CREATE:-1}" = 1 ] || make=
    allow "$datagenerator" "${2:+$2 $make}" --topic "$1"
    allow "$modelgenerator" "${3:+$3 $make}" --topic "$1"
    allow "$predictor" "${4:+$4 $make}" --topic "$1"
    allow "$verifier" "$5" --topic "$1"
    allow "$operator" "$6" --topic "$1"
}

# Read, Write, Delete and Alter include Describe.
topic "$data"           "Read Write" Read         Read         Read ""     Alter
topic "$schema"         "Read Write" Read         Read         ""   ""
topic "$label"          "Read Write" Read         Read         Read ""     Alter
topic "$model"          ""           "Read Write" Read         Read ""
topic "$status"         ""           Read         "Read Write" Read ""
topic "$prediction"     ""           ""           "Read Write" Read Delete Alter
topic "$rejected"       ""           ""           "Read Write" Read Delete Alter
topic "$label_rejected" ""           ""           "Read Write" Read Delete Alter

# It reads which labels predictions have met; it does not make this topic.
allow "$modelgenerator" Read --topic "$prediction"
allow "$modelgenerator" Write --transactional-id "$model-publisher"
# One transactional id for each replica.
allow "$predictor" Write --resource-pattern-type prefixed --transactional-id "$group-"
allow "$predictor" Read --group "$group"
allow "$verifier" Describe --group "$group"
allow "$operator" Delete --group "$group"
