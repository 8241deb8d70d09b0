// The same step in Go. To use it, build it in place of the module in C:
//
//	GOOS=wasip1 GOARCH=wasm go build -o ../checksum/main.wasm .
package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
)

func main() {
	var input struct {
		Event struct {
			Data struct{ Text string }
		}
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	text := []byte(input.Event.Data.Text)
	fmt.Fprintf(os.Stderr, "a text of %d bytes\n", len(text))
	fmt.Printf("{\"crc32\": \"%08x\", \"bytes\": %d}\n", crc32.ChecksumIEEE(text), len(text))
}
