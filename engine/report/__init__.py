"""`report.html`: one page that shows what a run has done."""
