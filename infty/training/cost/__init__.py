"""Measure and predict the cost of training: seconds, bytes and floating-point operations."""

from infty.training.cost.fit import LinearCost as LinearCost
from infty.training.cost.limits import count_disk_bytes as count_disk_bytes
from infty.training.cost.limits import count_usable_bytes as count_usable_bytes
from infty.training.cost.limits import explain_out_of_memory as explain_out_of_memory
from infty.training.cost.limits import refuse_full_disk as refuse_full_disk
from infty.training.cost.limits import refuse_too_little_memory as refuse_too_little_memory
from infty.training.cost.measure import RunCost as RunCost
from infty.training.cost.measure import count_step_flops as count_step_flops
from infty.training.cost.measure import measure_run as measure_run
from infty.training.cost.measure import measure_update as measure_update
from infty.training.cost.measure import repeat as repeat
