package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// isQuoted reports whether a scalar is a string to every reader by its style: quoted, or a block scalar.
func isQuoted(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// scalarKind is what the readers of YAML 1.1 and 1.2 take a scalar without quotes for.
type scalarKind string

// The kinds of plain scalars. kindInteger, kindFloat and kindBoolean are the spellings on which all readers agree.
const (
	kindString     scalarKind = "a string"
	kindInteger    scalarKind = "an integer"
	kindFloat      scalarKind = "a number"
	kindBoolean    scalarKind = "a boolean"
	kindNull       scalarKind = "null"
	kindBooleanish scalarKind = "a truth value"
	kindNumberish  scalarKind = "a number in an unusual spelling"
	kindZero       scalarKind = "negative zero"
	kindOctal      scalarKind = "an octal number"
	kindBased      scalarKind = "a number in another base"
	kindSpaced     scalarKind = "a number with underscores"
	kindSixty      scalarKind = "a number in base 60"
	kindExponent   scalarKind = "a number with an exponent"
	kindUnreal     scalarKind = "infinity or not a number"
	kindTime       scalarKind = "a date"
	kindMerge      scalarKind = "a merge key"
	kindValue      scalarKind = "a default value"
)

var (
	plainInteger = compiled(`^(0|-?[1-9][0-9]*)$`)
	plainNumber  = compiled(`^-?(0|[1-9][0-9]*)\.[0-9]+$`)
)

// numberish are the spellings that some readers take for something else than a string: those of
// https://yaml.org/type/ (YAML 1.1), of the core schema (YAML 1.2.2, section 10.3.2) and of gopkg.in/yaml.v3, without
// underscores.
var numberish = []struct {
	kind scalarKind
	re   func() *regexp.Regexp
}{
	{kindZero, compiled(`^-0(\.0*)?$`)},
	{kindTime, compiled(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?$`)},
	{kindOctal, compiled(`^[-+]?0(o[0-7]*|[0-9]+)$`)},
	{kindBased, compiled(`^[-+]?0([xX][0-9a-fA-F]*|[bB][01]*|O[0-7]*)$`)},
	{kindSixty, compiled(`^[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?$`)},
	{kindExponent, compiled(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$`)},
	{kindExponent, compiled(`^[-+]?0[xX][0-9a-fA-F.]*[pP][-+]?[0-9]+$`)},
	{kindUnreal, compiled(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)},
	{kindNumberish, compiled(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)$`)},
}

// plainKind says what a scalar without quotes is to readers. The result is kindString only if it is to all of them.
func plainKind(s string) scalarKind {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return kindNull
	case "true", "false":
		return kindBoolean
	case "True", "TRUE", "False", "FALSE", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "y", "Y", "n", "N":
		return kindBooleanish
	case "<<":
		return kindMerge
	case "=":
		return kindValue
	}
	if len(s) == 0 || !strings.ContainsRune("0123456789+-.", rune(s[0])) {
		return kindString
	}
	if plainInteger().MatchString(s) {
		return kindInteger
	}
	if bare := strings.ReplaceAll(s, "_", ""); bare != s && plainKind(bare) != kindString {
		return kindSpaced // many readers drop underscores before they look
	}
	for _, n := range numberish[:1] { // before plainNumber, which matches -0.0
		if n.re().MatchString(s) {
			return n.kind
		}
	}
	if plainNumber().MatchString(s) {
		return kindFloat
	}
	for _, n := range numberish[1:] {
		if n.re().MatchString(s) {
			return n.kind
		}
	}
	return kindString
}

// stringScalar returns the text of a scalar that must be a string.
func stringScalar(n *yaml.Node) (string, *SyntaxError) {
	if isQuoted(n) {
		return n.Value, nil
	}
	switch kind := plainKind(n.Value); kind {
	case kindString:
		return n.Value, nil
	case kindNull:
		return "", noValue(n)
	case kindInteger, kindFloat, kindBoolean:
		return "", at(n, "quote it: "+strconv.Quote(shorten(n.Value)), "%s is %s; want a string", shorten(n.Value), kind)
	default:
		return "", at(n, "quote it: "+strconv.Quote(shorten(n.Value)), "%s is %s to some readers; want a string", shorten(n.Value), kind)
	}
}

func noValue(n *yaml.Node) *SyntaxError {
	if n.Value == "" {
		return at(n, "give it a value, or leave the field out", "no value")
	}
	return at(n, "give it a value, leave the field out, or quote it", "%s is null, no value", n.Value)
}

// boolScalar returns a boolean in JSON's spelling.
func boolScalar(n *yaml.Node) (string, *SyntaxError) {
	kind := plainKind(n.Value)
	switch {
	case isQuoted(n):
		return "", at(n, "write true or false, without quotes", "a string; want a boolean")
	case kind == kindNull:
		return "", noValue(n)
	case n.Value != "true" && n.Value != "false":
		return "", at(n, "write true or false", "%q is not a boolean to every reader", shorten(n.Value))
	}
	return n.Value, nil
}

// integerScalar returns an integer within ±MaxInteger in JSON's spelling.
func integerScalar(n *yaml.Node) (string, *SyntaxError) {
	kind := plainKind(n.Value)
	switch {
	case isQuoted(n):
		return "", at(n, "remove the quotes", "a string; want an integer")
	case kind == kindNull:
		return "", noValue(n)
	case kind == kindFloat || kind == kindString || kind == kindBoolean || kind == kindBooleanish:
		return "", at(n, "write a whole decimal number, such as 10", "%q is %s; want an integer", shorten(n.Value), kind)
	case kind != kindInteger:
		return "", at(n, "write a whole decimal number, such as 10", "%s is %s, which readers understand differently; want a decimal integer", shorten(n.Value), kind)
	}
	if v, err := strconv.ParseInt(n.Value, 10, 64); err != nil || v > MaxInteger || v < -MaxInteger {
		return "", at(n, "JSON readers would round it; choose a larger unit", "%s is beyond ±(2^53-1)", shorten(n.Value))
	}
	return n.Value, nil
}

// numberScalar returns a number that a double holds exactly as written, in JSON's spelling.
func numberScalar(n *yaml.Node) (string, *SyntaxError) {
	kind := plainKind(n.Value)
	if kind == kindInteger {
		return integerScalar(n)
	}
	switch {
	case isQuoted(n):
		return "", at(n, "remove the quotes", "a string; want a number")
	case kind == kindNull:
		return "", noValue(n)
	case kind == kindString || kind == kindBoolean || kind == kindBooleanish:
		return "", at(n, "write a decimal number, such as 0.15", "%q is %s; want a number", shorten(n.Value), kind)
	case kind != kindFloat:
		return "", at(n, "write a decimal number, such as 0.15", "%s is %s, which readers understand differently; want a decimal number", shorten(n.Value), kind)
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if short := strings.TrimRight(strings.TrimRight(n.Value, "0"), "."); err != nil || plainFloat(v) != short {
		return "", at(n, fmt.Sprintf("write %s, which is what would be signed", shorten(plainFloat(v))), "%s has more digits than a double keeps", shorten(n.Value))
	}
	return n.Value, nil
}

// shorten keeps a long text out of a message.
func shorten(s string) string {
	const most = 100 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// quoteIfAmbiguous returns s as a YAML scalar: plain if that is a string to every reader, quoted if not.
func quoteIfAmbiguous(s string) string {
	if plainSafe().MatchString(s) && plainKind(s) == kindString && !strings.HasSuffix(s, ":") {
		return s
	}
	return quoteYAML(s)
}

// plainSafe are texts that need no quotes in block or flow context. ':' may be inside only when no space follows,
// '#' only when no space precedes: there are no spaces at all.
var plainSafe = compiled(`^[A-Za-z0-9/][A-Za-z0-9/._@#:+=~%-]*$`)

// quoteYAML writes a double-quoted scalar. Of what badText lets pass, only quote, backslash, line feed and tab need an
// escape (YAML 1.2.2, section 5.7); joiners are escaped to be seen.
func quoteYAML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\n':
			b.WriteString(`\n`)
		case '\t':
			b.WriteString(`\t`)
		case 0x200c, 0x200d:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
