package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"arch.network/attest/manifest"
)

// The forms of a result.
const (
	formatText  = "text"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatYAML  = "yaml"
)

func formats() []string { return []string{formatText, formatJSON, formatJSONL, formatYAML} }

// formatFlag is the value of --output. Any form but text is for programs, so errors and notes are JSON, too.
type formatFlag struct{ app *app }

func (f formatFlag) String() string {
	if f.app == nil || f.app.format == "" {
		return formatText
	}
	return f.app.format
}

func (f formatFlag) Type() string { return "form" }

func (f formatFlag) Set(value string) error {
	if !slices.Contains(formats(), value) {
		return fmt.Errorf("it is one of %s", strings.Join(formats(), ", "))
	}
	f.app.format = value
	f.app.json = value != formatText
	return nil
}

// encode writes a result in the form that a program asked for.
func (a *app) encode(v any) ([]byte, error) {
	line, err := jsonLine(v)
	if err != nil {
		return nil, err
	}
	switch a.format {
	case formatJSONL:
		return jsonLines(line)
	case formatYAML:
		text, err := manifest.JSONToYAML(line)
		if err != nil {
			return nil, err
		}
		if a.printed { // each result is a document
			text = append([]byte("---\n"), text...)
		}
		a.printed = true
		return text, nil
	}
	return line, nil
}

func jsonLine(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return printableJSON(buf.Bytes()), nil
}

// jsonLines writes the items of a list one a line. A list is an array, or an object with nothing but an array in it; anything else is one line.
func jsonLines(line []byte) ([]byte, error) {
	var items []json.RawMessage
	if json.Unmarshal(line, &items) != nil {
		var object map[string]json.RawMessage
		if json.Unmarshal(line, &object) != nil || len(object) != 1 {
			return line, nil
		}
		for _, only := range object {
			if json.Unmarshal(only, &items) != nil {
				return line, nil
			}
		}
	}
	var out bytes.Buffer
	for _, item := range items {
		if err := json.Compact(&out, item); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
