"""Tools for reports: a matrix of several reports, a comparison of two, a badge.

command      `harness report merge`, `diff`, `badge`
page         the page for people, from page.html.j2
matrix       implementations by features; causes: failures with one cause as one finding
timing       how long calls took; badge: a verdict as a small picture
released     `nox -s matrix`: the plugins that package registries give
compare      what is new, fixed and known between two reports
"""
