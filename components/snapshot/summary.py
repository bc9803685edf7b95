"""What a person sees of the lock file."""

from components.snapshot.lock import Lock
from components.summary import Read, Summary, table


def summary(read: Read) -> Summary:
    """The sources, and how much they hold."""
    lock = Lock.model_validate_json(read("sources", ""))
    sizes = {source.name: sum(found.size for found in source.objects) for source in lock.sources}
    objects = lock.objects()
    rows = [
        (source.name, source.uri, source.domain, source.licence, len(source.objects), sizes[source.name])
        for source in lock.sources
    ]
    properties: dict[str, str | float] = {
        "sources": ", ".join(sizes),
        "objects": len(objects),
        "object_bytes": sum(found.size for found in objects.values()),
    }
    page = "# Sources\n\n" + table(("source", "URI", "domain", "licence", "objects", "bytes"), rows)
    return Summary({"sources": properties}, page=page)
