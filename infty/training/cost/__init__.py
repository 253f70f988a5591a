"""What training costs: one way to measure seconds, bytes and floating-point operations, and one straight line."""

from infty.training.cost.fit import LinearCost as LinearCost
from infty.training.cost.limits import count_disk_bytes as count_disk_bytes
from infty.training.cost.limits import count_free_bytes as count_free_bytes
from infty.training.cost.limits import explained as explained
from infty.training.cost.limits import refuse_full_disk as refuse_full_disk
from infty.training.cost.limits import refuse_too_little_memory as refuse_too_little_memory
from infty.training.cost.measure import RunCost as RunCost
from infty.training.cost.measure import flops_a_step as flops_a_step
from infty.training.cost.measure import measure_run as measure_run
from infty.training.cost.measure import measure_update as measure_update
from infty.training.cost.measure import repeat as repeat
