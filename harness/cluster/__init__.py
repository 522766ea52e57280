"""What real clusters have in common, kind's and any other: how they are furnished, asked, disturbed and inspected."""
