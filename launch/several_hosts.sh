#!/bin/sh
# The same on every host: torchrun meets at the first one. RUN is a run's folder on a disk that all hosts share.
#   HOSTS=2 GPUS=8 FIRST=node1 RUN=runs/<name> sh launch/several_hosts.sh
set -eu
exec torchrun --nnodes "$HOSTS" --nproc-per-node "$GPUS" --rdzv-backend c10d --rdzv-endpoint "$FIRST:29500" \
  --rdzv-id "$(basename "$RUN")" -m helpers train --settings "$RUN/settings.json"
