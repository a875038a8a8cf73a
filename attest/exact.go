package attest

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"arch.network/attest/canonical"
)

// This file reads JSON that others wrote into our types. encoding/json would match member names whatever their case,
// so that {"subject":…,"Subject":…} is one thing to us and another to the next reader; here names are compared byte
// for byte, and what is not known is skipped. The input is the output of canonical.Transform: valid, free of white
// space and of duplicate members. Input that is not is an error or is misread, but never a panic.

// errJSON says that the scanner met something that Transform does not produce.
var errJSON = errors.New("not canonical JSON")

// decodeExact reads canonical JSON into the struct that ptr points at.
func decodeExact(data []byte, ptr any) error { return decode(data, ptr, false) }

// decodeStrict is decodeExact for what only we write: it accepts data only if it is, byte for byte, what
// canonical.Marshal makes of the value that was read. So members that are unknown, missing, null or empty where they
// would be left out are errors, and so is a second spelling of bytes or digests.
func decodeStrict(data []byte, ptr any) error { return decode(data, ptr, true) }

func decode(data []byte, ptr any, strict bool) error {
	d := decoder{rest: data, types: map[reflect.Type]*typeInfo{}, strict: strict}
	if err := d.value(reflect.ValueOf(ptr).Elem()); err != nil {
		return err
	}
	if len(d.rest) > 0 {
		return errJSON
	}
	return nil
}

// decoder reads in one pass. It remembers what it learned of each type during one call.
type decoder struct {
	rest   []byte // what is not read yet
	types  map[reflect.Type]*typeInfo
	strict bool
}

type typeInfo struct {
	custom   bool     // decodes itself
	names    []string // of the JSON members of a struct, by field
	optional []bool   // whether the member is left out when empty, by field
}

var (
	rawType    = reflect.TypeFor[json.RawMessage]()
	bytesType  = reflect.TypeFor[[]byte]()
	textsType  = reflect.TypeFor[map[string]string]()
	customType = reflect.TypeFor[json.Unmarshaler]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d *decoder) info(t reflect.Type) *typeInfo {
	if info, ok := d.types[t]; ok {
		return info
	}
	pointer := reflect.PointerTo(t)
	info := &typeInfo{custom: pointer.Implements(customType) || pointer.Implements(textType)}
	if t.Kind() == reflect.Struct {
		for field := range t.Fields() {
			name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
			info.names = append(info.names, name)
			info.optional = append(info.optional, rest != "")
		}
	}
	d.types[t] = info
	return info
}

// take returns the next value as it stands.
func (d *decoder) take() ([]byte, error) {
	n := valueLen(d.rest)
	if n <= 0 {
		return nil, errJSON
	}
	data := d.rest[:n:n]
	d.rest = d.rest[n:]
	return data, nil
}

// skip steps over c, if it is next.
func (d *decoder) skip(c byte) bool {
	if len(d.rest) == 0 || d.rest[0] != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

// value reads one value. null leaves the zero value, as encoding/json does.
func (d *decoder) value(to reflect.Value) error {
	switch {
	case to.Type() == rawType:
		data, err := d.take()
		to.SetBytes(data) // not copied: what is decoded is never written to
		return err
	case bytes.HasPrefix(d.rest, []byte("null")):
		_, err := d.text()
		return err
	case to.Kind() == reflect.String:
		text, err := d.text()
		to.SetString(text)
		return err
	}
	info := d.info(to.Type())
	switch {
	case info.custom:
		return d.custom(to)
	case to.Kind() == reflect.Struct:
		return d.structure(to, info)
	case to.Kind() == reflect.Map:
		return d.mapping(to)
	case to.Type() == bytesType:
		return d.bytes(to)
	case to.Kind() == reflect.Slice:
		return d.slice(to)
	default:
		data, err := d.take()
		if err != nil {
			return err
		}
		return json.Unmarshal(data, to.Addr().Interface())
	}
}

// text reads a string, or null for the empty one.
func (d *decoder) text() (string, error) {
	data, err := d.take()
	switch {
	case err != nil:
		return "", err
	case string(data) != "null":
		text, err := unquote(data)
		return string(text), err
	case d.strict:
		return "", errors.New("null stands for nothing")
	default:
		return "", nil
	}
}

func (d *decoder) structure(to reflect.Value, info *typeInfo) error {
	var seen uint64 // bit by field; no type here has more than 64
	err := d.members(func(name []byte) error {
		i := slices.IndexFunc(info.names, func(known string) bool { return known == string(name) })
		switch {
		case len(name) > 0 && i >= 0:
		case d.strict:
			return fmt.Errorf("member %q is unknown", shorten(string(name), 100))
		default:
			_, err := d.take()
			return err
		}
		seen |= 1 << i
		if err := d.value(to.Field(i)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil || !d.strict {
		return err
	}
	for i, name := range info.names {
		present := seen&(1<<i) != 0
		if present && info.optional[i] && empty(to.Field(i)) {
			return fmt.Errorf("member %q is empty, and should be left out", name)
		}
		if !present && !info.optional[i] {
			return fmt.Errorf("member %q is missing", name)
		}
	}
	return nil
}

// empty is what encoding/json leaves out for omitempty, and, for structs, for omitzero.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	}
	return v.IsZero()
}

// custom lets a value decode itself.
func (d *decoder) custom(to reflect.Value) error {
	data, err := d.take()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to.Addr().Interface()); err != nil || !d.strict {
		return err
	}
	again, err := canonical.Marshal(to.Addr().Interface())
	if err == nil && !bytes.Equal(again, data) {
		err = fmt.Errorf("%s is not the one spelling of its value", shorten(string(data), 100))
	}
	return err
}

func (d *decoder) mapping(to reflect.Value) error {
	if to.Type() == textsType {
		texts := map[string]string{}
		to.Set(reflect.ValueOf(texts))
		return d.members(func(name []byte) error {
			text, err := d.text()
			if err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			texts[string(name)] = text
			return nil
		})
	}
	to.Set(reflect.MakeMap(to.Type()))
	return d.members(func(name []byte) error {
		element := reflect.New(to.Type().Elem()).Elem()
		if err := d.value(element); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		to.SetMapIndex(reflect.ValueOf(string(name)), element)
		return nil
	})
}

func (d *decoder) slice(to reflect.Value) error {
	to.Set(reflect.MakeSlice(to.Type(), 0, 0))
	if !d.skip('[') {
		return fmt.Errorf("%w: want an array", errJSON)
	}
	for more := !d.skip(']'); more; more = !d.skip(']') {
		i := to.Len()
		switch {
		case i >= MaxDescriptors:
			return fmt.Errorf("array has over %d elements", MaxDescriptors)
		case i > 0 && !d.skip(','):
			return errJSON
		case i == to.Cap():
			to.Grow(1)
		}
		to.SetLen(i + 1)
		if err := d.value(to.Index(i)); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

// bytes accepts both base64 alphabets, with or without padding, as protobuf's JSON mapping does; strictly, only the
// standard one with padding.
func (d *decoder) bytes(to reflect.Value) error {
	text, err := d.text()
	if err != nil {
		return err
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	content, err := base64.RawStdEncoding.DecodeString(plain)
	if err == nil && d.strict && base64.StdEncoding.EncodeToString(content) != text {
		err = errors.New("it is not standard base64")
	}
	to.SetBytes(content)
	return err
}

// members reads an object: visit gets each member's name, unquoted, and must read its value.
func (d *decoder) members(visit func(name []byte) error) error {
	if !d.skip('{') {
		return fmt.Errorf("%w: want an object", errJSON)
	}
	first := true
	for more := !d.skip('}'); more; more = !d.skip('}') {
		if !first && !d.skip(',') {
			return errJSON
		}
		first = false
		literal, err := d.take()
		if err != nil {
			return err
		}
		name, err := unquote(literal)
		if err != nil {
			return err
		}
		if !d.skip(':') {
			return errJSON
		}
		if err := visit(name); err != nil {
			return err
		}
	}
	return nil
}

// valueLen returns the length of the value that data starts with; 0 if there is none.
func valueLen(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			n := canonical.StringLen(data[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
		}
	}
	if depth == 0 {
		return len(data)
	}
	return 0
}

// unquote reads a string literal. It copies only what needs unescaping.
func unquote(data []byte) ([]byte, error) {
	if len(data) < 2 || data[0] != '"' || data[len(data)-1] != '"' {
		return nil, fmt.Errorf("%w: want a string", errJSON)
	}
	if body := data[1 : len(data)-1]; bytes.IndexByte(body, '\\') < 0 {
		return body, nil
	}
	var text string
	err := json.Unmarshal(data, &text)
	return []byte(text), err
}
