"""Reports: from verdicts and frames to pages, tables and figures. Never imports torch."""

from bnstudy.calling import make_callable

make_callable(__name__)  # bnstudy.report(...)
