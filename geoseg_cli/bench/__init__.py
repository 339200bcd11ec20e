"""How fast a scene is mapped here, what that costs, and how far faster answers agree with those in fp32.

``run`` measures configurations, each in processes of its own (``apart``, ``measure``), in interleaved rounds;
``figures`` makes medians and ratios of what was measured; ``overlap`` compares overlaps of tiles with a reference of
wide context. Names are imported from these modules: what this one loaded would count in every process's start.
"""
