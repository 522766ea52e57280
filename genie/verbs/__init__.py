"""The verbs over a pod's selection, a module each (specification, section 2).

    add.py     pod → selection → record → delegates, in order → one result; what fails is rolled back
    delete.py  record → delegates in reverse
    check.py   record → every delegate, with the result that it gave
    gc.py      what no valid attachment explains goes, here and in every network
    status.py  whether an ADD can work now

context.py is what a call has, whichever verb it is.
"""
