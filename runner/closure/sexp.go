package closure

import (
	"encoding/hex"
	"errors"
	"strings"
)

// The limits of S-expressions. Guix's access control list has some 300 bytes a key.
const (
	maxExpression = 64 << 10 // bytes
	maxNesting    = 16
)

// expression is an S-expression as libgcrypt writes them: an atom, or a list.
type expression struct {
	atom string
	list []expression // nil: it is an atom
}

var errExpression = errors.New("it is no S-expression")

// parseExpression reads one S-expression in libgcrypt's advanced form: lists in parentheses, words, #HEX# and "text" without
// escapes.
func parseExpression(text string) (expression, error) {
	if len(text) > maxExpression {
		return expression{}, errExpression
	}
	e, rest, err := readExpression(text, 0)
	if err == nil && strings.Trim(rest, " \t\r\n\x00") != "" {
		err = errExpression
	}
	return e, err
}

func readExpression(text string, depth int) (e expression, rest string, err error) {
	text = strings.TrimLeft(text, " \t\r\n")
	switch {
	case text == "" || depth > maxNesting:
		return expression{}, "", errExpression
	case text[0] == '(':
		return readList(text[1:], depth)
	case text[0] == '#':
		digits, rest, ok := strings.Cut(text[1:], "#")
		raw, err := hex.DecodeString(digits)
		if !ok || err != nil {
			return expression{}, "", errExpression
		}
		return expression{atom: string(raw)}, rest, nil
	case text[0] == '"':
		atom, rest, ok := strings.Cut(text[1:], `"`)
		if !ok || strings.Contains(atom, `\`) {
			return expression{}, "", errExpression
		}
		return expression{atom: atom}, rest, nil
	}
	n := 0
	for n < len(text) && wordChar(text[n]) {
		n++
	}
	if n == 0 {
		return expression{}, "", errExpression
	}
	return expression{atom: text[:n]}, text[n:], nil
}

func readList(text string, depth int) (e expression, rest string, err error) {
	e.list = []expression{}
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if rest, ok := strings.CutPrefix(text, ")"); ok {
			return e, rest, nil
		}
		var one expression
		if one, text, err = readExpression(text, depth+1); err != nil {
			return expression{}, "", err
		}
		e.list = append(e.list, one)
	}
}

func wordChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-./_:*+=", c) >= 0
}

// get follows names through lists that begin with them: each must be there once. It returns the last one without its name.
func (e expression) get(names ...string) ([]expression, bool) {
	list := []expression{e}
	for _, name := range names {
		var found []expression
		for _, one := range list {
			if len(one.list) == 0 || one.list[0].list != nil || one.list[0].atom != name {
				continue
			}
			if found != nil {
				return nil, false
			}
			found = one.list[1:]
		}
		if found == nil {
			return nil, false
		}
		list = found
	}
	return list, true
}

// value is get for a list of one atom behind its name.
func (e expression) value(names ...string) (string, bool) {
	list, ok := e.get(names...)
	if !ok || len(list) != 1 || list[0].list != nil {
		return "", false
	}
	return list[0].atom, true
}
