"""The plots of the page; :mod:`compress.report.page.sections` says where each stands."""
