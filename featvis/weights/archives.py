"""Zip archives in memory that hold what they announce: nothing is unpacked to more than that."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping

ZIP_START = b"PK\x03\x04"

# Trained weights hardly shrink: an archive that unpacks to more than this many times its size, and
# to more than this many bytes, is none of weights.
_MOST_EXPANSION = 20

_MOST_UNPACKED = 2**24

#: Of a network with ten thousand tensors and an optimizer there are fewer.
_MOST_MEMBERS = 100_000

_LOCAL_HEADER = struct.Struct("<4s22xHH")

_ENCRYPTED = 0x1 | 0x40

_UTF8 = 0x800


class Archive(Mapping[str, "bytes | memoryview"]):
    """The members of a zip archive by name, in the archive's order, read when they are asked for.

    Args:
        data: The archive.

    Raises:
        ValueError: Damaged; encrypted, packed by other methods than deflate, with two members of
            one name or one place, or with more in it than weights are packed to.
    """

    def __init__(self, data: bytes) -> None:
        if data.count(b"PK\x01\x02") > _MOST_MEMBERS:
            raise ValueError(f"an archive of more than {_MOST_MEMBERS} members")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
        self._data = memoryview(data)
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise ValueError("an archive with two members of one name")
        self._places = {member.filename: self._place(member) for member in members}
        end = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < end:
                raise ValueError(f"{member.filename!r:.80} overlaps another member of the archive")
            end = self._places[member.filename].stop
        most = max(_MOST_UNPACKED, _MOST_EXPANSION * len(data))
        unpacked = sum(member.file_size for member in members)
        if unpacked > most:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than {most}")

    def _place(self, member: zipfile.ZipInfo) -> slice:
        """Where a member's bytes are, once all that is said of them is the same."""
        shown = f"{member.filename!r:.80}"
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"{shown} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{shown} is packed by method {member.compress_type}; expected stored or deflated"
            )
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"{shown} is stored, and is said to have two sizes")
        start = member.header_offset
        if not 0 <= start <= len(self._data) - _LOCAL_HEADER.size:
            raise ValueError(f"{shown} lies outside the archive")
        signature, name, extra = _LOCAL_HEADER.unpack_from(self._data, start)
        start += _LOCAL_HEADER.size
        encoding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
        if signature != ZIP_START or bytes(
            self._data[start : start + name]
        ) != member.orig_filename.encode(encoding):
            raise ValueError(f"{shown} is not where the archive says it is")
        start += name + extra
        if start + member.compress_size > len(self._data):
            raise ValueError(f"{shown} is truncated")
        return slice(start, start + member.compress_size)

    def __getitem__(self, name: str) -> bytes | memoryview:
        member = self._members[name]
        content: bytes | memoryview = self._data[self._places[name]]
        if member.compress_type == zipfile.ZIP_DEFLATED:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            # One byte more than announced shows that there is more.
            content = inflate.decompress(content, member.file_size + 1)
            if len(content) != member.file_size or not inflate.eof:
                raise ValueError(f"{name!r:.80} is not of the {member.file_size} bytes announced")
        if zlib.crc32(content) != member.CRC:
            raise ValueError(f"{name!r:.80} is damaged: its check sum is another")
        return content

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
