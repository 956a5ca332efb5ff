"""LeLoRA: slices of singular value decompositions, and the policy that chooses them (Zhou et al.).

    slices.py      which triplets a strategy means, and the linear layer that trains them
    optimizer.py   AdamW on the triplets of the current strategy alone
    candidates.py  what a policy chooses among, as options write it
    policy.py      features, network and REINFORCE; no Ray
    rewards.py     what an interval's strategies were worth, all together or matrix by matrix
    actor.py       the policy as a Ray actor, and how trials reach it
    history.py     strategies over time as Parquet, and their summary

The variant that puts them together is `trainables.variants.lelora`.
"""
