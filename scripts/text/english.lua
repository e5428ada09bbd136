-- SPDX-License-Identifier: MIT
-- Words, sentences and syllables of English prose, by rules of thumb that are right often enough for a report.
-- Other scripts' letters count as letters: every byte above 127 is taken as part of a word.

local english = {}

local LETTER = "[%a\128-\255]"
local WORD = LETTER .. "[%w\128-\255'%-]*"

local TYPOGRAPHY = {
  ["\226\128\147"] = " - ", ["\226\128\148"] = " - ",   -- dashes
  ["\226\128\152"] = "'", ["\226\128\153"] = "'",       -- single quotes
  ["\226\128\156"] = '"', ["\226\128\157"] = '"',       -- double quotes
}

local COMMON = {}
for word in ([[
  a about after all also am an and any are as at be been before being but by can cannot could did do does each
  either for from had has have he her here him his how however i if in into is it its itself may me might more
  most must my no nor not of on one only or other our out over own same shall she should so some such than that
  the their them then there these they this those through to too under unless up upon was we were what when
  where which while who whom whose why will with within without would you your
]]):gmatch "%a+" do
  COMMON[word] = true
end

-- One kind of line end, plain quotes and dashes, single spaces, one blank line between paragraphs.
function english.normalise(text)
  return (text
    :gsub("^\239\187\191", "")
    :gsub("\r\n?", "\n")
    :gsub("\194\160", " ")
    :gsub("\226\128.", TYPOGRAPHY)
    :gsub("[ \t\f\v]+", " ")
    :gsub(" ?\n ?", "\n")
    :gsub("\n\n\n+", "\n\n")
    :gsub("^%s+", "")
    :gsub("%s+$", ""))
end

-- for word in english.words(text): as it is written, without the quotes and hyphens that may follow it.
function english.words(text)
  local next_word = text:gmatch(WORD)
  return function()
    local word = next_word()
    return word and word:gsub("['%-]+$", "") or nil
  end
end

function english.count_words(text)
  local _, count = text:gsub(WORD, "")
  return count
end

-- A word that says little about what a text is about.
function english.is_common(word)
  return COMMON[word:lower()] == true
end

-- A sentence may begin with a capital, a digit, a quote or a letter outside ASCII: "e.g. this" does not.
local function may_begin_sentence(text, position)
  return text:find("^[%u%d\"'(\128-\255]", position) ~= nil
end

local function add_sentence(list, text)
  local sentence = text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")
  if english.count_words(sentence) > 1 then   -- "4." and "Preamble" are no sentences
    list[#list + 1] = sentence
  end
end

local function split_paragraph(list, paragraph)
  local start, position = 1, 1
  while true do
    local _, finish, following = paragraph:find("[.!?]+[\"')]*%s+()", position)
    if not finish then break end
    if may_begin_sentence(paragraph, following) then
      add_sentence(list, paragraph:sub(start, finish))
      start = following
    end
    position = following
  end
  add_sentence(list, paragraph:sub(start))
end

function english.paragraphs(text)
  local list = {}
  for paragraph in (text .. "\n\n"):gmatch "(.-)\n\n+" do
    if paragraph:find "%S" then list[#list + 1] = paragraph end
  end
  return list
end

function english.sentences(text)
  local list = {}
  for _, paragraph in ipairs(english.paragraphs(text)) do
    split_paragraph(list, paragraph)
  end
  return list
end

-- Groups of vowels, where an e at the end is silent: "make" has one, "table" has two.
function english.syllables(word)
  local lower = word:lower()
  local _, count = lower:gsub("[aeiouy\128-\255]+", "")
  if lower:find "[^aeiouyl]es?$" or lower:find "[aeiouy]les?$" then count = count - 1 end
  return math.max(count, 1)
end

return english
