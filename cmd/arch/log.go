package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newLogCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "log [ID]",
		Short: "Show the log of a build by its id, or list the logs",
		Long: `Log shows what the steps of a build wrote. ID is a build's id or the beginning of one, with a suffix such as .varied for
the second build. Without ID it lists the logs, the newest first.`,
		Example: "  arch log\n  arch log 3f2c81",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.logDir()
			if err != nil {
				return err
			}
			logs, err := listLogs(dir)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.print(logList{logs}, func(w *screen) {
					for _, l := range logs {
						fmt.Fprintf(w, "%s  %8s  %s\n", l.Time.Local().Format(time.DateTime), size(l.Size), l.ID)
					}
				})
			}
			return a.showLog(dir, logs, args[0])
		},
	}
}

type logEntry struct {
	ID   string    `json:"id"`
	Size int64     `json:"size"` // bytes
	Time time.Time `json:"time"`
}

func (logEntry) kind() string { return "BuildLog" }

// logList is the logs there are.
type logList struct {
	Logs []logEntry `json:"logs"`
}

func (logList) kind() string { return "BuildLogList" }

func (l logList) items() []result { return itemsOf(l.Logs) }

// logText is one log.
type logText struct {
	ID  string `json:"id"`
	Log string `json:"log"`
}

func (logText) kind() string { return "BuildLogText" }

func listLogs(dir string) ([]logEntry, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return []logEntry{}, nil
	}
	if err != nil {
		return nil, err
	}
	logs := []logEntry{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".log")
		info, err := e.Info()
		if ok && err == nil {
			logs = append(logs, logEntry{id, info.Size(), info.ModTime()})
		}
	}
	sort.Slice(logs, func(i, j int) bool { return logs[i].Time.After(logs[j].Time) })
	return logs, nil
}

// showLog writes the one log that id means.
func (a *app) showLog(dir string, logs []logEntry, id string) error {
	found, err := findLog(logs, id)
	if err != nil {
		return err
	}
	f, err := openRegular(filepath.Join(dir, found+".log"))
	if err != nil {
		return err
	}
	defer f.Close()
	if a.json {
		data, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		return a.print(logText{found, string(data)}, nil)
	}
	if !isTerminal(a.out) { // the bytes as they were written
		_, err = io.Copy(a.out, f)
		return err
	}
	return copyPrintable(a.out, f)
}

// copyPrintable copies text line by line, made safe for a terminal. Lines longer than its buffer come in parts.
func copyPrintable(w io.Writer, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if _, werr := io.WriteString(w, printable(string(line))); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// findLog returns the id of the log that text means: the beginning of a build's id, and the whole of a suffix.
func findLog(logs []logEntry, text string) (string, error) {
	prefix, suffix, _ := strings.Cut(text, ".")
	var found []string
	for _, l := range logs {
		id, of, _ := strings.Cut(l.ID, ".")
		if strings.HasPrefix(id, prefix) && of == suffix {
			found = append(found, l.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", hinted(fmt.Errorf("there is no log of build %q", text), "arch log lists the logs")
	case 1:
		return found[0], nil
	}
	return "", hinted(fmt.Errorf("%q is the beginning of %d ids", text, len(found)), "give more digits")
}
