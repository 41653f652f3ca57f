"""Generated data under the CSS protocol: scenes, modifications, pictures."""
