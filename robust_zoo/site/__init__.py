"""The leaderboard: pages made of records, which need no server and no network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"make": ["SiteModel", "make_site"]}
)
