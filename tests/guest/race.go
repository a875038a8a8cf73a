//go:build race

package guest

// raceEnabled tells whether this is built with -race.
const raceEnabled = true
