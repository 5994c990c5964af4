"""Did one training beat another? Finished runs, compared on what both were evaluated on.

Runs that differ in nothing but their seed are one group. A group's value is the mean over its
seeds; a difference is paired: the same frames or rollouts, and the seeds that both groups have.
"""
