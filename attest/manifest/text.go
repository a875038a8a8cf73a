package manifest

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// badRune says what is wrong with a character that a reader may not see, or two readers may see differently; "" if
// nothing. Line feed and tab are for the caller to judge. The zero-width joiners U+200C and U+200D belong to the
// spelling of some languages and pass.
func badRune(r rune) string {
	switch {
	case r >= ' ' && r < 0x7f: // nearly all text
		return ""
	case r == '\n' || r == '\t' || r == 0x200c || r == 0x200d:
		return ""
	case r == '\r':
		return "a carriage return"
	case r == 0x85 || r == 0x2028 || r == 0x2029:
		return fmt.Sprintf("the line separator %U, which only some YAML readers know", r)
	case r == 0xfeff:
		return "a byte order mark"
	case unicode.Is(unicode.Bidi_Control, r):
		return fmt.Sprintf("the text direction control %U, which makes text look like another", r)
	case unicode.IsControl(r):
		return fmt.Sprintf("the control character %U", r)
	case unicode.Is(unicode.Cf, r):
		return fmt.Sprintf("the invisible character %U", r)
	case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
		return fmt.Sprintf("the noncharacter %U", r)
	}
	return ""
}

// badText says what is wrong with a string value; "" if nothing.
func badText(s string) string {
	if !utf8.ValidString(s) {
		return "it is not valid UTF-8"
	}
	for _, r := range s {
		if msg := badRune(r); msg != "" {
			return "it contains " + msg
		}
	}
	return ""
}

// maxKey bounds the keys of mappings, in bytes.
const maxKey = 256

// badKey says what is wrong with the key of a mapping, and the cure; "" if nothing.
func badKey(k string) (msg, cure string) {
	switch {
	case k == "":
		return "the key is empty", "give it a name"
	case len(k) > maxKey:
		return fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(k), maxKey), ""
	case !norm.NFC.IsNormalString(k):
		return fmt.Sprintf("the key %+q is not in Unicode normal form C", k), fmt.Sprintf("write it as %+q", norm.NFC.String(k))
	case !isPrintable(k):
		return fmt.Sprintf("the key %q contains an invisible character", k), "remove it"
	}
	return "", ""
}

// isPrintable reports whether s has none of the characters that badRune refuses, and no line feed, tab or joiner.
func isPrintable(s string) bool {
	return badText(s) == "" && !strings.ContainsAny(s, "\n\t\u200c\u200d")
}

func pathClean(s string) bool { return path.Clean(s) == s }
