package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The limits of an image's user database. Debian's own has 20 lines.
const (
	maxDatabase = 1 << 20 // bytes of /etc/passwd or /etc/group
	maxUserText = 256     // bytes of the configuration's User
)

// maxID is the largest user or group id that an image may name. Above it are (uid_t)-1, which means "none" to the kernel,
// and what overflows a signed integer on the way to 0 (CVE-2024-40635).
const maxID = math.MaxInt32

// lookUser finds out who text, "[USER][:GROUP]" with names or numbers, is in the image: image-spec config.md, "User".
func lookUser(root *os.Root, text string) (User, error) {
	if len(text) > maxUserText {
		return User{}, fmt.Errorf("user of %d bytes, more than %d", len(text), maxUserText)
	}
	name, group, hasGroup := strings.Cut(text, ":")
	u := User{Home: "/"}
	entry, err := lookPasswd(root, name)
	if err != nil {
		return User{}, err
	}
	u.UID, u.GID = entry.uid, entry.gid
	if entry.home != "" {
		u.Home = entry.home
	}
	if hasGroup {
		u.GID, err = lookGroup(root, group)
	}
	return u, err
}

// passwd is a line of passwd(5).
type passwd struct {
	uid, gid int
	home     string // a clean, absolute path; empty: none is given
}

// lookPasswd finds a user. A number needs no line, and has group 0 then.
func lookPasswd(root *os.Root, user string) (passwd, error) {
	key, value, named := 0, user, true
	var p passwd
	if user == "" || isNumber(user) {
		uid, err := parseID("user", user)
		if err != nil {
			return passwd{}, err
		}
		p.uid = uid
		key, value, named = 2, strconv.Itoa(uid), false
	}
	fields, err := lookLine(root, "etc/passwd", 7, key, value)
	switch {
	case err != nil:
		return passwd{}, fmt.Errorf("find user %q: %w", user, err)
	case fields == nil && named:
		return passwd{}, fmt.Errorf("user %q is not in the image's /etc/passwd", user)
	case fields == nil:
		return p, nil
	}
	if p.uid, err = parseID("user", fields[2]); err != nil {
		return passwd{}, err
	}
	if p.gid, err = parseID("group", fields[3]); err != nil {
		return passwd{}, err
	}
	if home := fields[5]; clean(home) {
		p.home = home
	}
	return p, nil
}

func lookGroup(root *os.Root, group string) (int, error) {
	if isNumber(group) {
		return parseID("group", group)
	}
	if group == "" {
		return 0, errors.New("group is empty")
	}
	fields, err := lookLine(root, "etc/group", 4, 0, group)
	if err != nil {
		return 0, fmt.Errorf("find group %q: %w", group, err)
	}
	if fields == nil {
		return 0, fmt.Errorf("group %q is not in the image's /etc/group", group)
	}
	return parseID("group", fields[2])
}

// isNumber reports whether text is meant as a number: it begins with a digit or a sign, as no name of useradd(8) does.
func isNumber(text string) bool {
	return text != "" && strings.IndexByte("0123456789+-", text[0]) >= 0
}

// parseID reads an id in plain decimal; nothing is 0.
func parseID(what, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%s id %.40q is not a plain decimal number", what, text)
	}
	if n > maxID {
		return 0, fmt.Errorf("%s id %s is over %d", what, text, maxID)
	}
	return int(n), nil
}

// lookLine returns the fields of the line of a database whose field number key is value; nil if there is none, or no such file.
// Lines that have another number of fields are no entries. Two lines of one name (field 0) that differ are an error, since programs
// differ in which they take; of several of one number the first is taken.
func lookLine(root *os.Root, name string, count, key int, value string) ([]string, error) {
	data, err := readDatabase(root, name)
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) != count || fields[key] != value {
			continue
		}
		if found != nil && key == 0 && !slices.Equal(found, fields) {
			return nil, fmt.Errorf("two lines of /%s differ", name)
		}
		if found == nil {
			found = fields
		}
	}
	return found, nil
}

// readDatabase reads a file of the image, through links of the image; none is an empty one.
func readDatabase(root *os.Root, name string) ([]byte, error) {
	path, info, err := resolve(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("/%s is no file", name)
	}
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDatabase+1))
	if err == nil && len(data) > maxDatabase {
		err = fmt.Errorf("/%s has more than %d bytes", name, maxDatabase)
	}
	return data, err
}
