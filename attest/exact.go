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
func decodeExact(data []byte, ptr any) error {
	d := decoder{types: map[reflect.Type]*typeInfo{}}
	return d.value(data, reflect.ValueOf(ptr).Elem())
}

// decodeStrict is decodeExact for what only we write: it accepts data only if it is, byte for byte, what
// canonical.Marshal makes of the value that was read. So members that are unknown, missing, null or empty where they
// would be left out are errors, and so is a second spelling of bytes or digests.
func decodeStrict(data []byte, ptr any) error {
	d := decoder{types: map[reflect.Type]*typeInfo{}, strict: true}
	return d.value(data, reflect.ValueOf(ptr).Elem())
}

// decoder remembers what it learned of each type during one call.
type decoder struct {
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
	customType = reflect.TypeFor[json.Unmarshaler]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d decoder) info(t reflect.Type) *typeInfo {
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

// value reads one value. null leaves the zero value, as encoding/json does.
func (d decoder) value(data []byte, to reflect.Value) error {
	if to.Type() == rawType {
		to.SetBytes(slices.Clip(data)) // not copied: what is decoded is never written to
		return nil
	}
	if string(data) == "null" {
		if d.strict {
			return errors.New("null stands for nothing")
		}
		return nil
	}
	if to.Kind() == reflect.String {
		text, err := unquote(data)
		to.SetString(text)
		return err
	}
	info := d.info(to.Type())
	switch {
	case info.custom:
		return d.custom(data, to)
	case to.Kind() == reflect.Struct:
		return d.structure(data, to, info)
	case to.Kind() == reflect.Map:
		return d.mapping(data, to)
	case to.Type() == bytesType:
		return d.bytes(data, to)
	case to.Kind() == reflect.Slice:
		return d.slice(data, to)
	default:
		return json.Unmarshal(data, to.Addr().Interface())
	}
}

func (d decoder) structure(data []byte, to reflect.Value, info *typeInfo) error {
	var seen uint64 // bit by field; no type here has more than 64
	err := eachMember(data, func(name string, value []byte) error {
		i := slices.Index(info.names, name)
		switch {
		case name != "" && i >= 0:
		case d.strict:
			return fmt.Errorf("member %q is unknown", shorten(name, 100))
		default:
			return nil
		}
		seen |= 1 << i
		if err := d.value(value, to.Field(i)); err != nil {
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
func (d decoder) custom(data []byte, to reflect.Value) error {
	if err := json.Unmarshal(data, to.Addr().Interface()); err != nil || !d.strict {
		return err
	}
	again, err := canonical.Marshal(to.Addr().Interface())
	if err == nil && !bytes.Equal(again, data) {
		err = fmt.Errorf("%s is not the one spelling of its value", shorten(string(data), 100))
	}
	return err
}

func (d decoder) mapping(data []byte, to reflect.Value) error {
	to.Set(reflect.MakeMap(to.Type()))
	return eachMember(data, func(name string, value []byte) error {
		element := reflect.New(to.Type().Elem()).Elem()
		if err := d.value(value, element); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		to.SetMapIndex(reflect.ValueOf(name), element)
		return nil
	})
}

func (d decoder) slice(data []byte, to reflect.Value) error {
	to.Set(reflect.MakeSlice(to.Type(), 0, 0))
	if len(data) < 2 || data[0] != '[' {
		return fmt.Errorf("%w: want an array", errJSON)
	}
	for rest := data[1:]; len(rest) > 0 && rest[0] != ']'; {
		n := valueLen(rest)
		if n <= 0 {
			return errJSON
		}
		if to.Len() >= MaxDescriptors {
			return fmt.Errorf("array has over %d elements", MaxDescriptors)
		}
		element := reflect.New(to.Type().Elem()).Elem()
		if err := d.value(rest[:n], element); err != nil {
			return fmt.Errorf("[%d]: %w", to.Len(), err)
		}
		to.Set(reflect.Append(to, element))
		rest = bytes.TrimPrefix(rest[n:], []byte(","))
	}
	return nil
}

// bytes accepts both base64 alphabets, with or without padding, as protobuf's JSON mapping does; strictly, only the
// standard one with padding.
func (d decoder) bytes(data []byte, to reflect.Value) error {
	text, err := unquote(data)
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

// eachMember calls visit for each member of a JSON object.
func eachMember(data []byte, visit func(name string, value []byte) error) error {
	if len(data) < 2 || data[0] != '{' {
		return fmt.Errorf("%w: want an object", errJSON)
	}
	for rest := data[1:]; len(rest) > 0 && rest[0] != '}'; {
		n := valueLen(rest)
		if n <= 0 || len(rest) <= n || rest[n] != ':' {
			return errJSON
		}
		name, err := unquote(rest[:n])
		if err != nil {
			return err
		}
		rest = rest[n+1:]
		if n = valueLen(rest); n <= 0 {
			return errJSON
		}
		if err := visit(name, rest[:n]); err != nil {
			return err
		}
		rest = bytes.TrimPrefix(rest[n:], []byte(","))
	}
	return nil
}

// valueLen returns the length of the value that data starts with; 0 if there is none.
func valueLen(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			n := stringLen(data[i:])
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

// stringLen returns the length of the string literal that data starts with; 0 if it does not end.
func stringLen(data []byte) int {
	for i := 1; i < len(data); {
		quote := bytes.IndexByte(data[i:], '"')
		if quote < 0 {
			return 0
		}
		escape := bytes.IndexByte(data[i:i+quote], '\\')
		if escape < 0 {
			return i + quote + 1
		}
		i += escape + 2
	}
	return 0
}

// unquote reads a string literal.
func unquote(data []byte) (string, error) {
	if len(data) < 2 || data[0] != '"' || data[len(data)-1] != '"' {
		return "", fmt.Errorf("%w: want a string", errJSON)
	}
	if body := data[1 : len(data)-1]; bytes.IndexByte(body, '\\') < 0 {
		return string(body), nil
	}
	var text string
	err := json.Unmarshal(data, &text)
	return text, err
}
