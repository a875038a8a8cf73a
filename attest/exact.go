package attest

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// This file reads JSON that others wrote into our types. encoding/json would match member names whatever their case,
// so that {"subject":…,"Subject":…} is one thing to us and another to the next reader; here names are compared byte
// for byte, and what is not known is skipped. The input is the output of canonical.Transform: valid, free of white
// space and of duplicate members. Input that is not is an error or is misread, but never a panic.

// errJSON says that the scanner met something that Transform does not produce.
var errJSON = errors.New("not canonical JSON")

// decodeExact reads canonical JSON into the struct that ptr points at.
func decodeExact(data []byte, ptr any) error {
	return decodeValue(data, reflect.ValueOf(ptr).Elem())
}

var (
	rawType    = reflect.TypeFor[json.RawMessage]()
	bytesType  = reflect.TypeFor[[]byte]()
	customType = reflect.TypeFor[json.Unmarshaler]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// decodeValue reads one value. null leaves the zero value, as encoding/json does.
func decodeValue(data []byte, to reflect.Value) error {
	if to.Type() == rawType {
		to.SetBytes(bytes.Clone(data))
		return nil
	}
	if string(data) == "null" {
		return nil
	}
	if pointer := reflect.PointerTo(to.Type()); pointer.Implements(customType) || pointer.Implements(textType) {
		return json.Unmarshal(data, to.Addr().Interface())
	}
	switch to.Kind() {
	case reflect.Struct:
		return decodeStruct(data, to)
	case reflect.Map:
		return decodeMap(data, to)
	case reflect.Slice:
		if to.Type() == bytesType {
			return decodeBytes(data, to)
		}
		return decodeSlice(data, to)
	case reflect.String:
		text, err := unquote(data)
		to.SetString(text)
		return err
	default:
		return json.Unmarshal(data, to.Addr().Interface())
	}
}

func decodeStruct(data []byte, to reflect.Value) error {
	return eachMember(data, func(name string, value []byte) error {
		for i := range to.NumField() {
			tag, _, _ := strings.Cut(to.Type().Field(i).Tag.Get("json"), ",")
			if tag != name {
				continue
			}
			if err := decodeValue(value, to.Field(i)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

func decodeMap(data []byte, to reflect.Value) error {
	to.Set(reflect.MakeMap(to.Type()))
	return eachMember(data, func(name string, value []byte) error {
		element := reflect.New(to.Type().Elem()).Elem()
		if err := decodeValue(value, element); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		to.SetMapIndex(reflect.ValueOf(name), element)
		return nil
	})
}

func decodeSlice(data []byte, to reflect.Value) error {
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
		if err := decodeValue(rest[:n], element); err != nil {
			return fmt.Errorf("[%d]: %w", to.Len(), err)
		}
		to.Set(reflect.Append(to, element))
		rest = bytes.TrimPrefix(rest[n:], []byte(","))
	}
	return nil
}

// decodeBytes accepts both base64 alphabets, with or without padding, as protobuf's JSON mapping does.
func decodeBytes(data []byte, to reflect.Value) error {
	text, err := unquote(data)
	if err != nil {
		return err
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	content, err := base64.RawStdEncoding.DecodeString(text)
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
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
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
