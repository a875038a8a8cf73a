package imagespec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Package encoding/json takes the last of several members of one name, merges what they hold, and takes "LAYERS" for
// "layers". Other readers of the same image do not; so nothing that we use may be written like that.

// plainDocument checks a manifest or an index, which has been decoded once: see Document.
func plainDocument(data []byte) error {
	top, err := plainMembers(data, "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests")
	if err != nil {
		return err
	}
	list := []json.RawMessage{top["config"]}
	for _, name := range []string{"layers", "manifests"} {
		var items []json.RawMessage
		if raw := top[name]; raw != nil {
			if err := json.Unmarshal(raw, &items); err != nil {
				return err
			}
		}
		list = append(list, items...)
	}
	for _, raw := range list {
		descriptor, err := plainMembers(raw, "mediaType", "digest", "size", "platform")
		if err != nil {
			return err
		}
		if _, err := plainMembers(descriptor["platform"], "os", "architecture", "variant"); err != nil {
			return err
		}
	}
	return nil
}

// plainConfiguration checks what is used of an image's configuration: see Configuration.
func plainConfiguration(data []byte) error {
	top, err := plainMembers(data, "os", "architecture", "config", "rootfs")
	if err != nil {
		return err
	}
	if _, err = plainMembers(top["rootfs"], "type", "diff_ids"); err != nil {
		return err
	}
	_, err = plainMembers(top["config"], "User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Volumes")
	return err
}

// plainMembers returns the members of an object that have the given names; nil for what is no object. One that occurs
// twice, or with letters of another case, is an error.
func plainMembers(data []byte, names ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, nil // what it should have been, Unmarshal has judged
	}
	members := make(map[string]json.RawMessage, len(names))
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.EqualFold(name, key.(string)) {
				continue
			}
			if _, twice := members[name]; twice || name != key {
				return nil, fmt.Errorf("%q is there twice, or spelled %.40q: readers differ in what that means", name, key)
			}
			members[name] = value
		}
	}
	return members, nil
}
