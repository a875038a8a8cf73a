package main

import (
	"bytes"
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
func (a *app) encode(v result) ([]byte, error) {
	if l, ok := v.(list); ok && a.format == formatJSONL {
		var out bytes.Buffer
		for _, item := range l.items() {
			line, err := jsonLine(item)
			if err != nil {
				return nil, err
			}
			out.Write(line)
		}
		return out.Bytes(), nil
	}
	line, err := jsonLine(v)
	if err != nil || a.format != formatYAML {
		return line, err
	}
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
