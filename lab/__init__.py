"""A real two-Region store on one machine, its AWS, its faults and its console."""
