package main

import (
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
				return a.print(logs, func(w io.Writer) {
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

func (a *app) showLog(dir string, logs []logEntry, id string) error {
	var found []string
	for _, l := range logs {
		if l.ID == id {
			found = []string{id}
			break
		}
		if strings.HasPrefix(l.ID, id) && !strings.Contains(l.ID, ".") {
			found = append(found, l.ID)
		}
	}
	switch len(found) {
	case 0:
		return hinted(fmt.Errorf("there is no log of build %q", id), "arch log lists the logs")
	case 1:
	default:
		return hinted(fmt.Errorf("%q is the beginning of %d ids", id, len(found)), "give more digits")
	}
	data, err := os.ReadFile(filepath.Join(dir, found[0]+".log"))
	if err != nil {
		return err
	}
	return a.print(map[string]string{"id": found[0], "log": string(data)}, func(w io.Writer) {
		text := string(data)
		if terminal(a.out) {
			text = printable(text)
		}
		io.WriteString(w, text)
	})
}
