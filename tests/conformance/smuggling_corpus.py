"""Requests that two parsers could take for different things, by what is wrong with them. Raw bytes, all of them for the
route `HOT`.

The classes follow what was published on request smuggling (CL.TE, TE.CL, TE.TE, CL.0, chunk extensions and line ends);
the requests are written for this gateway. Where a misreading would bring a second request to light, that one is
`SMUGGLED`, so a test can look for its mark among the engine's bytes.
"""

HOT = b"/v1/chat/completions"
MARK = b"smuggled"
BODY = b'{"model":"shop","messages":[]}'
SMUGGLED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: smuggled\r\nAuthorization: Bearer good\r\n"
    b'X-Request-Id: smuggled\r\nContent-Length: 16\r\n\r\n{"model":"shop"}'
)
LINE = b"POST " + HOT + b" HTTP/1.1"
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
WHOLE = b"1e\r\n" + BODY + b"\r\n0\r\n\r\n"
"""`BODY` in one chunk."""


def request(*lines: bytes, body: bytes = b"", line: bytes = LINE, host: bytes = b"Host: gateway\r\n") -> bytes:
    head = b"".join(each + b"\r\n" for each in lines)
    return line + b"\r\n" + host + b"Authorization: Bearer good\r\n" + head + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return request(CHUNKED, body=body)


_TE_FORMS = {
    "blank before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "vertical tab before the value": b"Transfer-Encoding: \x0bchunked",
    "form feed before the value": b"Transfer-Encoding: \x0cchunked",
    "vertical tab after the value": b"Transfer-Encoding: chunked\x0b",
    "null after the value": b"Transfer-Encoding: chunked\x00",
    "null before the value": b"Transfer-Encoding: \x00chunked",
    "null in the name": b"Transfer\x00-Encoding: chunked",
    "null after the name": b"Transfer-Encoding\x00: chunked",
    "backspace in the name": b"Tran\x08sfer-Encoding: chunked",
    "DEL after the value": b"Transfer-Encoding: chunked\x7f",
    "no-break space before the value": b"Transfer-Encoding: \xa0chunked",
    "no-break space after the name": b"Transfer-Encoding\xa0: chunked",
    "0xff before the value": b"Transfer-Encoding: \xffchunked",
    "no colon": b"Transfer-Encoding chunked",
    "equals sign": b"Transfer-Encoding= chunked",
    "tab after the value": b"Transfer-Encoding: chunked\t",
    "quoted": b'Transfer-Encoding: "chunked"',
    "single quotes": b"Transfer-Encoding: 'chunked'",
    "parameter": b"Transfer-Encoding: chunked;ext=val",
    "weight": b"Transfer-Encoding: chunked;q=0.5",
    "shortened": b"Transfer-Encoding: chunk",
    "prefixed": b"Transfer-Encoding: xchunked",
    "suffixed": b"Transfer-Encoding: chunkedx",
    "brackets": b"Transfer-Encoding: [chunked]",
    "escaped": b"Transfer-Encoding: chunke\\d",
    "fullwidth letter": "Transfer-Encoding: chunﻛed".encode(),
    "Kelvin sign": "Transfer-Encoding: chun\u212aed".encode(),
    "empty": b"Transfer-Encoding:",
    "identity": b"Transfer-Encoding: identity",
    "cow": b"Transfer-Encoding: cow",
    "identity, chunked": b"Transfer-Encoding: identity, chunked",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked, identity": b"Transfer-Encoding: chunked, identity",
    "chunked, cow": b"Transfer-Encoding: chunked, cow",
    "chunked twice in one": b"Transfer-Encoding: chunked, chunked",
    "empty element first": b"Transfer-Encoding: , chunked",
    "empty element last": b"Transfer-Encoding: chunked,",
    "two values by a blank": b"Transfer-Encoding: chunked chunked",
    "two lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "two lines, identity last": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "two lines, identity first": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "two lines, cow last": b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
    "two lines in two cases": b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
    "two lines, one of them empty": b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "folded value": b"Transfer-Encoding:\r\n chunked",
    "folded value by a tab": b"Transfer-Encoding:\r\n\tchunked",
    "folded after the value": b"Transfer-Encoding: chunked\r\n , identity",
    "folded into the header before": b"X: y\r\n Transfer-Encoding: chunked",
    "folded by a blank line": b"X: y\r\n \r\nTransfer-Encoding: chunked",
    "bare LF before it": b"X: y\nTransfer-Encoding: chunked",
    "bare LF after it": b"Transfer-Encoding: chunked\nX: y",
    "bare LF in the name": b"Transfer-\nEncoding: chunked",
    "bare LF before the colon": b"Transfer-Encoding\n: chunked",
    "bare CR before it": b"X: y\rTransfer-Encoding: chunked",
    "bare CR after it": b"Transfer-Encoding: chunked\rX: y",
    "bare CR in the value": b"Transfer-Encoding: chun\rked",
    "bare CR before the value": b"Transfer-Encoding:\rchunked",
    "CR CR LF after it": b"Transfer-Encoding: chunked\r",
    "LF CR before it": b"X: y\n\rTransfer-Encoding: chunked",
}

TRANSFER_ENCODING = {
    **{f"{name}, alone": request(line, body=b"0\r\n\r\n" + SMUGGLED) for name, line in _TE_FORMS.items()},
    **{f"{name}, after CL": request(LENGTH, line, body=b"0\r\n\r\n" + SMUGGLED) for name, line in _TE_FORMS.items()},
    **{f"{name}, before CL": request(line, LENGTH, body=WHOLE + SMUGGLED) for name, line in _TE_FORMS.items()},
    "in HTTP/1.0": request(CHUNKED, line=b"POST " + HOT + b" HTTP/1.0", body=WHOLE + SMUGGLED),
    "in HTTP/1.0 with keep-alive": request(
        CHUNKED, b"Connection: keep-alive", line=b"POST " + HOT + b" HTTP/1.0", body=WHOLE + SMUGGLED
    ),
    "in HTTP/1.0 with CL": request(CHUNKED, LENGTH, line=b"POST " + HOT + b" HTTP/1.0", body=WHOLE + SMUGGLED),
}

BOTH_FRAMINGS = {
    "CL.TE": request(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG" + SMUGGLED),
    "CL.TE, CL over all": request(b"Content-Length: %d" % (len(SMUGGLED) + 5), CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "TE.CL": request(CHUNKED, b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "TE.CL, CL 0": request(CHUNKED, b"Content-Length: 0", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "both, and they agree": request(b"Content-Length: %d" % len(WHOLE), CHUNKED, body=WHOLE),
    "CL named in Connection": request(b"Connection: Content-Length", LENGTH, CHUNKED, body=WHOLE + SMUGGLED),
    "TE named in Connection": request(b"Connection: Transfer-Encoding", LENGTH, CHUNKED, body=WHOLE + SMUGGLED),
    "both, with an upgrade": request(
        b"Connection: Upgrade", b"Upgrade: h2c", LENGTH, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED
    ),
}

_CL_VALUES = {
    "plus sign": b"+30",
    "minus sign": b"-30",
    "minus zero": b"-0",
    "hexadecimal": b"0x1e",
    "hexadecimal without 0x": b"1e",
    "octal": b"0o36",
    "underscore": b"3_0",
    "fraction": b"30.0",
    "exponent": b"3e1",
    "thousands": b"0,030",
    "empty": b"",
    "blank inside": b"3 0",
    "blank and a second number": b"30 30",
    "tab inside": b"3\t0",
    "null after it": b"30\x00",
    "vertical tab before it": b"\x0b30",
    "form feed after it": b"30\x0c",
    "no-break space before it": b"\xa030",
    "semicolon": b"30;",
    "quoted": b'"30"',
    "list that agrees": b"30, 30",
    "list that differs": b"30, 0",
    "list with an empty element": b"30,",
    "list that begins empty": b",30",
    "not a number": b"thirty",
    "NaN": b"NaN",
    "Arabic digits": "٣٠".encode(),
    "fullwidth digits": "３０".encode(),
    "superscript digits": "³⁰".encode(),
    "over 64 bits": b"18446744073709551646",
    "2 ** 64": b"18446744073709551616",
    "2 ** 63": b"9223372036854775808",
    "over 128 bits": b"340282366920938463463374607431768211486",
    "bare CR after it": b"30\r",
    "bare LF and another header": b"30\nX: y",
    "folded": b"3\r\n 0",
    "folded before it": b"\r\n 30",
}

CONTENT_LENGTH = {
    **{name: request(b"Content-Length: " + value, body=BODY + SMUGGLED) for name, value in _CL_VALUES.items()},
    "two that differ": request(LENGTH, b"Content-Length: 0", body=BODY + SMUGGLED),
    "two that differ, 0 first": request(b"Content-Length: 0", LENGTH, body=BODY + SMUGGLED),
    "two that agree": request(LENGTH, LENGTH, body=BODY + SMUGGLED),
    "two in two cases": request(LENGTH, LENGTH.lower(), body=BODY + SMUGGLED),
    "two, one of them empty": request(LENGTH, b"Content-Length:", body=BODY + SMUGGLED),
    "two, not side by side": request(LENGTH, b"X: y", b"Content-Length: 5", body=BODY + SMUGGLED),
    "blank before the colon": request(b"Content-Length : 30", body=BODY + SMUGGLED),
    "tab before the colon": request(b"Content-Length\t: 30", body=BODY + SMUGGLED),
    "null in the name": request(b"Content-Length\x00: 30", body=BODY + SMUGGLED),
    "blank before the name": request(b"X: y", b" Content-Length: 30", body=BODY + SMUGGLED),
    "no colon": request(b"Content-Length 30", body=BODY + SMUGGLED),
    "bare LF before it": request(b"X: y\nContent-Length: 30", body=BODY + SMUGGLED),
    "bare CR before it": request(b"X: y\rContent-Length: 30", body=BODY + SMUGGLED),
}

_SIZES = {
    "minus": b"-1e",
    "plus": b"+1e",
    "0x": b"0x1e",
    "0X": b"0X1E",
    "h": b"1eh",
    "no hexadecimal digit": b"1g",
    "empty": b"",
    "blank before it": b" 1e",
    "blank after it": b"1e ",
    "tab after it": b"1e\t",
    "null after it": b"1e\x00",
    "underscore": b"1_e",
    "point": b"1e.0",
    "comma": b"1e,",
    "two numbers": b"1e 1e",
    "over 64 bits": b"1000000000000001e",
    "2 ** 64": b"10000000000000000",
    "all ones": b"f" * 17,
    "fullwidth digit": "1１".encode(),
    "0xff": b"\xff",
}

_EXTENSIONS = {
    "bare LF": b"1e;a\n",
    "bare LF at once": b"1e;\n",
    "bare CR": b"1e;a\rb",
    "bare CR at once": b"1e\rX",
    "null": b"1e;a\x00b",
    "quoted with bare LF": b'1e;a="\n"',
    "quoted with CR LF": b'1e;a="\r\n"',
    "quote without end": b'1e;a="b',
    "second quote": b'1e;a="b"c',
    "blank before the semicolon": b"1e ;a",
    "empty name": b"1e;",
    "DEL": b"1e;a\x7f",
    "no semicolon": b"1e a=b",
    "LF that hides a chunk": b"2;\nxx\r\n%x\r\n0\r\n\r\n" % len(SMUGGLED),
}

CHUNKS = {
    **{f"size: {name}": chunks(value + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED) for name, value in _SIZES.items()},
    **{
        f"extension: {name}": chunks(value + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED)
        for name, value in _EXTENSIONS.items()
    },
    "bare LF after the size": chunks(b"1e\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "bare CR after the size": chunks(b"1e\r" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "LF CR after the size": chunks(b"1e\n\r" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "CR CR LF after the size": chunks(b"1e\r\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "bare LF after the data": chunks(b"1e\r\n" + BODY + b"\n0\r\n\r\n" + SMUGGLED),
    "bare CR after the data": chunks(b"1e\r\n" + BODY + b"\r0\r\n\r\n" + SMUGGLED),
    "nothing after the data": chunks(b"1e\r\n" + BODY + b"0\r\n\r\n" + SMUGGLED),
    "two bytes of data in place of CR LF": chunks(b"1e\r\n" + BODY + b"xx0\r\n\r\n" + SMUGGLED),
    "data longer than its size": chunks(b"1d\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "data shorter than its size": chunks(b"1f\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "only bare LF": chunks((b"1e\r\n" + BODY + b"\r\n0\r\n\r\n").replace(b"\r\n", b"\n") + SMUGGLED),
    "last chunk with bare LF": chunks(b"1e\r\n" + BODY + b"\r\n0\n\n" + SMUGGLED),
    "last chunk, then bare LF": chunks(b"1e\r\n" + BODY + b"\r\n0\r\n\n" + SMUGGLED),
    "last chunk, then bare CR": chunks(b"1e\r\n" + BODY + b"\r\n0\r\n\r" + SMUGGLED),
    "last chunk, then two bytes": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nXX" + SMUGGLED),
    "last chunk minus zero": chunks(b"1e\r\n" + BODY + b"\r\n-0\r\n\r\n" + SMUGGLED),
    "last chunk 0x0": chunks(b"1e\r\n" + BODY + b"\r\n0x0\r\n\r\n" + SMUGGLED),
    "last chunk with a bad extension": chunks(b"1e\r\n" + BODY + b"\r\n0;\n\r\n\r\n" + SMUGGLED),
    "trailer Content-Length": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n" + SMUGGLED),
    "trailer Transfer-Encoding": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED),
    "trailer with bare LF": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nX: y\nZ: 1\r\n\r\n" + SMUGGLED),
    "trailer with bare CR": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nX: y\rZ: 1\r\n\r\n" + SMUGGLED),
    "trailer with null": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nX: y\x00\r\n\r\n" + SMUGGLED),
    "trailer folded": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nX: y\r\n z\r\n\r\n" + SMUGGLED),
    "trailer without colon": chunks(b"1e\r\n" + BODY + b"\r\n0\r\nX\r\n\r\n" + SMUGGLED),
    "trailer that is a request": chunks(b"1e\r\n" + BODY + b"\r\n0\r\n" + SMUGGLED),
}

LINES = {
    "bare LF everywhere": request(LENGTH).replace(b"\r\n", b"\n") + BODY + SMUGGLED,
    "bare LF after the request line": LINE + b"\nHost: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    "bare CR after the request line": LINE + b"\rHost: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    "bare LF ends the head": request(LENGTH)[:-2] + b"\n" + BODY + SMUGGLED,
    "bare CR ends the head": request(LENGTH)[:-2] + b"\r" + BODY + SMUGGLED,
    "CR CR LF ends the head": request(LENGTH)[:-2] + b"\r\r\n" + BODY + SMUGGLED,
    "bare LF in a value": request(LENGTH, b"X: y\nZ: 1", body=BODY + SMUGGLED),
    "bare CR in a value": request(LENGTH, b"X: y\rZ: 1", body=BODY + SMUGGLED),
    "bare CR in a name": request(LENGTH, b"X\rY: 1", body=BODY + SMUGGLED),
    "null in a value": request(LENGTH, b"X: y\x00z", body=BODY + SMUGGLED),
    "null in a name": request(LENGTH, b"X\x00: y", body=BODY + SMUGGLED),
    "null before the request": b"\x00" + request(LENGTH, body=BODY + SMUGGLED),
    "null after the head": request(LENGTH)[:-2] + b"\x00\r\n" + BODY + SMUGGLED,
    "folded header": request(LENGTH, b"X: y\r\n z", body=BODY + SMUGGLED),
    "folded header by a tab": request(LENGTH, b"X: y\r\n\tz", body=BODY + SMUGGLED),
    "folded header, empty": request(LENGTH, b"X:\r\n y", body=BODY + SMUGGLED),
    "fold of blanks only": request(LENGTH, b"X: y\r\n  ", body=BODY + SMUGGLED),
    "blank before the first header": LINE + b"\r\n Host: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    "blank before a colon": request(LENGTH, b"X : y", body=BODY + SMUGGLED),
    "header without colon": request(LENGTH, b"X", body=BODY + SMUGGLED),
    "header without name": request(LENGTH, b": y", body=BODY + SMUGGLED),
    "blank in a name": request(LENGTH, b"X Y: z", body=BODY + SMUGGLED),
    "separator in a name": request(LENGTH, b"X(Y): z", body=BODY + SMUGGLED),
    "quote in a name": request(LENGTH, b'"X": z', body=BODY + SMUGGLED),
    "letter beyond ASCII in a name": request(LENGTH, b"X\xe4: z", body=BODY + SMUGGLED),
    **{
        f"control character {code:#04x} in a value": request(LENGTH, b"X: y%cz" % code, body=BODY + SMUGGLED)
        for code in (0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F)
    },
    "control character in a header that is dropped": request(LENGTH, b"Cookie: a\x01b", body=BODY + SMUGGLED),
}

REQUEST_LINES = {
    "HTTP/0.9": b"POST " + HOT + b"\r\n\r\n" + SMUGGLED,
    "HTTP/0.9 with headers": b"POST " + HOT + b"\r\nHost: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    "no version, bare LF": b"POST " + HOT + b"\nHost: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    **{
        version.decode(): request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b" " + version)
        for version in (
            b"HTTP/0.9",
            b"HTTP/1.2",
            b"HTTP/1.9",
            b"HTTP/2.0",
            b"HTTP/2",
            b"HTTP/3.0",
            b"HTTP/9.9",
            b"HTTP/1",
            b"HTTP/1.",
            b"HTTP/.1",
            b"HTTP/11",
            b"HTTP/1.10",
            b"HTTP/1.01",
            b"HTTP/01.1",
            b"HTTP/1,1",
            b"HTTP/+1.1",
            b"HTTP/0x1.1",
            b"HTTP 1.1",
            b"HTTP\\1.1",
            b"HTTPS/1.1",
            b"HTTTP/1.1",
            b"http/1.1",
            b"HTTP/1.1x",
            b"XHTTP/1.1",
        )
    },
    "version twice": request(LENGTH, body=BODY + SMUGGLED, line=LINE + b" HTTP/1.1"),
    "blank after the version": request(LENGTH, body=BODY + SMUGGLED, line=LINE + b" "),
    "tab after the method": request(LENGTH, body=BODY + SMUGGLED, line=b"POST\t" + HOT + b" HTTP/1.1"),
    "tab before the version": request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\tHTTP/1.1"),
    "vertical tab before the version": request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\x0bHTTP/1.1"),
    "blank before the method": request(LENGTH, body=BODY + SMUGGLED, line=b" " + LINE),
    "no target": request(LENGTH, body=BODY + SMUGGLED, line=b"POST HTTP/1.1"),
    "no method": request(LENGTH, body=BODY + SMUGGLED, line=HOT + b" HTTP/1.1"),
    "method in small letters": request(LENGTH, body=BODY + SMUGGLED, line=b"post " + HOT + b" HTTP/1.1"),
    "method that is not one": request(LENGTH, body=BODY + SMUGGLED, line=b"POSTX " + HOT + b" HTTP/1.1"),
    "method with a null": request(LENGTH, body=BODY + SMUGGLED, line=b"POST\x00 " + HOT + b" HTTP/1.1"),
    "method of two words": request(LENGTH, body=BODY + SMUGGLED, line=b"PO ST " + HOT + b" HTTP/1.1"),
    "blank in the target": request(LENGTH, body=BODY + SMUGGLED, line=b"POST /v1/chat completions HTTP/1.1"),
    "null in the target": request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\x00 HTTP/1.1"),
    "control character in the target": request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\x01 HTTP/1.1"),
    "DEL in the target": request(LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\x7f HTTP/1.1"),
    "bytes beyond ASCII in the target": request(
        LENGTH, body=BODY + SMUGGLED, line=b"POST " + HOT + b"\xc3\xa4 HTTP/1.1"
    ),
    "target without a slash": request(LENGTH, body=BODY + SMUGGLED, line=b"POST v1/chat/completions HTTP/1.1"),
    "target of an authority": request(LENGTH, body=BODY + SMUGGLED, line=b"POST gateway:80 HTTP/1.1"),
    "target of a question mark": request(LENGTH, body=BODY + SMUGGLED, line=b"POST ?x HTTP/1.1"),
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "CONNECT with a body": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n" + LENGTH + b"\r\n\r\n" + BODY + SMUGGLED,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + SMUGGLED,
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n" + SMUGGLED,
    "JSON": BODY + b"\r\n\r\n" + SMUGGLED,
}

HOSTS = {
    "none": request(LENGTH, body=BODY + SMUGGLED, host=b""),
    "two": request(LENGTH, b"Host: smuggled", body=BODY + SMUGGLED),
    "two that agree": request(LENGTH, b"Host: gateway", body=BODY + SMUGGLED),
    "two in two cases": request(LENGTH, b"hOST: gateway", body=BODY + SMUGGLED),
    "two in HTTP/1.0": request(LENGTH, b"Host: b", body=BODY + SMUGGLED, line=b"POST " + HOT + b" HTTP/1.0"),
    "blank before the colon": request(LENGTH, body=BODY + SMUGGLED, host=b"Host : gateway\r\n"),
    "folded": request(LENGTH, body=BODY + SMUGGLED, host=b"Host: gateway\r\n .example\r\n"),
    **{
        f"value {value!r}": request(LENGTH, body=BODY + SMUGGLED, host=b"Host: " + value + b"\r\n")
        for value in (
            b"a b",
            b"a\tb",
            b"a/b",
            b"http://a",
            b"user@a",
            b"a#b",
            b"a?b",
            b"a\\b",
            b"a:b",
            b"a:80:80",
            b"a:-1",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"<a>",
            b'"a"',
            b"a\xe4",
            b"a|b",
            b"a^b",
        )
    },
}

LENIENT = {
    "two blanks after the method": request(LENGTH, body=BODY, line=b"POST  " + HOT + b" HTTP/1.1"),
    "bare LF before the request": b"\n" + request(LENGTH, body=BODY),
    "bare CR before the request": b"\r" + request(LENGTH, body=BODY),
    "RTSP in place of HTTP": request(LENGTH, body=BODY, line=b"POST " + HOT + b" RTSP/1.1"),
    "extension with a value and no name": chunks(b"1e;=a\r\n" + BODY + b"\r\n0\r\n\r\n"),
}
"""What llhttp takes though RFC 9112 does not ask for it. None of it says anything about where the request ends, and the
engine gets it in one clean form."""

LOOK_ALIKES = {
    header.decode("latin-1"): request(header, LENGTH, body=BODY)
    for header in (
        b"Transfer_Encoding: chunked",
        b"Transfer-Encoding-: chunked",
        b"X-Transfer-Encoding: chunked",
        b"TransferEncoding: chunked",
        b"Content-Encoding: chunked",
        b"TE: chunked",
        b"Trailer: Transfer-Encoding",
        b"Content_Length: 0",
        b"Content-Length-: 0",
        b"X-Content-Length: 0",
        b"X: Transfer-Encoding: chunked",
        b"X: , Content-Length: 0",
        b"X-HTTP-Method-Override: GET",
        b"X-Original-URL: /v1/smuggled",
        b"Connection: Content-Length",
        b"Connection: Transfer-Encoding, Host",
        b"Upgrade: h2c",
    )
}
"""Headers that are not those which frame a request, though somebody could take them for these."""

CORPUS = {
    f"{kind}: {name}": data
    for kind, cases in (
        ("TE", TRANSFER_ENCODING),
        ("both", BOTH_FRAMINGS),
        ("CL", CONTENT_LENGTH),
        ("chunk", CHUNKS),
        ("line", LINES),
        ("request line", REQUEST_LINES),
        ("Host", HOSTS),
    )
    for name, data in cases.items()
}
